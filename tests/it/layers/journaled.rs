//! Journals: what is acknowledged while the remote is down reaches it, in order and once.

mod conforms;
mod faults;
#[cfg(feature = "json")]
mod files;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod kills;
mod maps;
mod owners;
mod refused;

use std::{collections::BTreeMap, path::Path};

use persistify::{
    Acknowledge, Error, ErrorKind, Expect, JournalStats, Journaled, Otherwise, Provider,
    ProviderExt, Transaction, Wanted,
    testing::{Fault, Method},
};

use crate::support::{
    Pen, Store, as_it_is, map_name, name, open, put,
    records::{load, one, pairs, sorted, text_of},
    store, stored,
};

type Spooled = Journaled<Store>;

fn journaled(store: &Store, folder: &Path) -> Spooled {
    store.clone().layer(Journaled::new(folder))
}

/// The state of the journal of the map `map`.
fn stats<P: Provider>(store: &Journaled<P>) -> JournalStats {
    store.stats().remove(&map_name()).unwrap_or_default()
}

/// Ends the last handle without a close, and opens the folder again. The old one is unlocked
/// once its tasks have noticed.
async fn restart<P: Provider>(
    before: Journaled<P>,
    open: impl Fn() -> Journaled<P>,
) -> Journaled<P> {
    drop(before);
    loop {
        let store = open();
        match store.export("map").await {
            Err(error) if error.kind() == ErrorKind::Unavailable => tokio::task::yield_now().await,
            opened => {
                opened.unwrap();
                return store;
            }
        }
    }
}

fn kinds(error: &Error) -> (ErrorKind, bool) {
    (error.kind(), error.may_have_applied())
}

fn down_for_commits(store: &Store) {
    store.set_rule(|call| match call.method {
        Method::Commit => Fault::Before(ErrorKind::Unavailable),
        _ => Fault::None,
    });
}

#[tokio::test]
async fn saves_go_on_while_the_remote_is_down_and_reach_it_later() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    store.drain().await.unwrap();
    remote.down(ErrorKind::Unavailable);
    for n in 2..5 {
        map.insert_and_save("a", n).await.unwrap();
        map.insert_and_save(n.to_string(), n).await.unwrap();
    }
    map.remove_and_save("3").await.unwrap();
    assert!(stats(&store).batches > 0 && stats(&store).bytes > 0);
    assert!(stats(&store).oldest.is_some());
    remote.up();
    store.drain().await.unwrap();
    let expected = [("2", "2"), ("4", "4"), ("a", "4")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(stored(&remote).await, BTreeMap::from(expected));
    assert_eq!((stats(&store).batches, stats(&store).bytes), (0, 0));
    map.close().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_journal_drains_by_itself_once_the_remote_is_back() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    remote.down(ErrorKind::Unavailable);
    map.insert_and_save("a", 1).await.unwrap();
    let attempts = remote.calls(Method::Load) + remote.calls(Method::Commit);
    remote.begun(Method::Commit, attempts + 3).await;
    remote.up();
    let ended = remote.calls_ended(Method::Commit);
    remote.ended(Method::Commit, ended + 1).await;
    assert_eq!(
        text_of(remote.inner(), &map_name(), "a").await.unwrap(),
        "1"
    );
}

/// A restart: the handle is gone without a close, and the folder is opened again.
#[tokio::test]
async fn a_journal_of_an_earlier_run_is_sent_before_anything_is_loaded() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let before = journaled(&remote, folder.path());
    let mut pen = Pen::new();
    before.load(&map_name(), Wanted::All).await.unwrap();
    down_for_commits(&remote);
    pen.write(&before, &map_name(), vec![put("a", "1")])
        .await
        .unwrap();
    pen.write(&before, &map_name(), vec![put("a", "2")])
        .await
        .unwrap();
    let after = restart(before, || journaled(&remote, folder.path())).await;
    remote.behave();
    let records = sorted(&after, &map_name(), Wanted::All).await;
    assert_eq!(pairs(&records), [("a".into(), "2".into())]);
    assert_eq!(stats(&after).batches, 0);
}

#[tokio::test]
async fn the_journal_is_laid_over_the_records_of_a_remote_that_only_loads() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let before = journaled(&remote, folder.path());
    before.load(&map_name(), Wanted::All).await.unwrap();
    let mut pen = Pen::new();
    let first = ["a", "b", "c"].map(|key| put(key, "0"));
    pen.write(&before, &map_name(), first.to_vec())
        .await
        .unwrap();
    before.drain().await.unwrap();
    down_for_commits(&remote);
    let later = Some(pen.at + crate::support::HOUR);
    let changes = vec![
        put("a", "1"),
        persistify::Change::delete("b"),
        persistify::Change::touch("c", later),
    ];
    pen.write(&before, &map_name(), changes).await.unwrap();
    let store = restart(before, || journaled(&remote, folder.path())).await;
    let records = sorted(&store, &map_name(), Wanted::All).await;
    let expected = [("a".to_owned(), "1".to_owned()), ("c".into(), "0".into())];
    assert_eq!(pairs(&records), expected);
    assert_eq!(records[1].expires_at, later);
    let keys = Wanted::Keys(["a".into(), "b".into()].into());
    let some = sorted(&store, &map_name(), keys).await;
    assert_eq!(pairs(&some), expected[..1]);
    for wanted in [Wanted::page(None, 10), Wanted::changed(records[0].revision)] {
        let error = load(&store, &map_name(), wanted).await.unwrap_err();
        assert_eq!(kinds(&error), (ErrorKind::Unavailable, false));
    }
    // The map opens, and its saves go on.
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    map.insert_and_save("b", 5).await.unwrap();
    remote.behave();
    store.drain().await.unwrap();
    let all = sorted(remote.inner(), &map_name(), Wanted::All).await;
    let values: Vec<_> = pairs(&all).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["1", "5", "0"]);
    assert_eq!(all[2].expires_at, later);
}

#[tokio::test]
async fn a_remote_that_cannot_load_is_an_error_that_names_what_waits() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    store.load(&map_name(), Wanted::All).await.unwrap();
    remote.down(ErrorKind::Unavailable);
    Pen::new()
        .write(&store, &map_name(), vec![put("a", "1")])
        .await
        .unwrap();
    let error = load(&store, &map_name(), Wanted::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("1 acknowledged batches"),
        "{error}"
    );
}

#[tokio::test]
async fn the_first_open_of_a_map_needs_a_remote_that_takes_commits() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    down_for_commits(&remote);
    let error = load(&store, &map_name(), Wanted::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let saved = Pen::new()
        .write(&store, &map_name(), vec![put("a", "1")])
        .await;
    assert_eq!(kinds(&saved.unwrap_err()), (ErrorKind::Unavailable, false));
    assert_eq!(stats(&store).batches, 0);
}

#[tokio::test]
async fn a_conditional_batch_follows_what_was_acknowledged_before_it() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    store.load(&map_name(), Wanted::All).await.unwrap();
    let mut pen = Pen::new();
    remote.down(ErrorKind::Unavailable);
    pen.write(&store, &map_name(), vec![put("a", "1")])
        .await
        .unwrap();
    let absent = put("a", "2").expect(Expect::Absent, Otherwise::Fail);
    let conditional = pen.changes(&map_name(), vec![absent]).divisible(true);
    let error = store.commit(&conditional).await.unwrap_err();
    assert_eq!(kinds(&error), (ErrorKind::Unavailable, false));
    remote.up();
    let error = store.commit(&conditional).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let present = put("a", "3").expect(Expect::Present, Otherwise::Fail);
    let answer = pen.write(&store, &map_name(), vec![present]).await.unwrap();
    assert!(answer.revision.is_some());
    assert_eq!(
        text_of(remote.inner(), &map_name(), "a").await.unwrap(),
        "3"
    );
}

#[tokio::test]
async fn a_transaction_follows_the_journals_of_all_its_maps() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    let from = open::<u32>(store.clone(), "from", as_it_is).await;
    let to = open::<u32>(store.clone(), "to", as_it_is).await;
    from.insert_and_save("a", 1).await.unwrap();
    to.insert_and_save("a", 1).await.unwrap();
    let mut transfer = Transaction::new(&store);
    transfer.insert(&from, "a", 0).insert(&to, "a", 2);
    transfer.require(&to, "a", Expect::Present);
    transfer.commit().await.unwrap();
    let found = async |map| text_of(remote.inner(), &name(map), "a").await.unwrap();
    assert_eq!(found("from").await, "0");
    assert_eq!(found("to").await, "2");
    // Its maps save locally again, and claim what the remote has acknowledged.
    to.insert_and_save("a", 3).await.unwrap();
    to.save_if("a", 4, Expect::Present).await.unwrap();
    assert_eq!(found("to").await, "4");
}

#[tokio::test]
async fn a_full_journal_refuses_saves_and_drops_nothing() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let layer = Journaled::new(folder.path()).max_bytes(64 << 10);
    let store = remote.clone().layer(layer);
    store.load(&map_name(), Wanted::All).await.unwrap();
    remote.down(ErrorKind::Unavailable);
    let big = format!("{:?}", "x".repeat(10_000));
    let mut pen = Pen::new();
    let mut kept = 0;
    let error = loop {
        match pen
            .write(&store, &map_name(), vec![put(&kept.to_string(), &big)])
            .await
        {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((kept, kinds(&error)), (6, (ErrorKind::Unavailable, false)));
    assert!(error.to_string().contains("full"), "{error}");
    remote.up();
    store.drain().await.unwrap();
    pen.write(&store, &map_name(), vec![put("more", "1")])
        .await
        .unwrap();
    store.drain().await.unwrap();
    assert_eq!(stored(&remote).await.len(), kept + 1);
}

#[tokio::test]
async fn with_acknowledge_remote_a_save_waits_for_the_remote() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let local = journaled(&remote, folder.path());
    local.load(&map_name(), Wanted::All).await.unwrap();
    let mut pen = Pen::new();
    remote.down(ErrorKind::Unavailable);
    pen.write(&local, &map_name(), vec![put("a", "1")])
        .await
        .unwrap();
    let store = restart(local, || {
        let layer = Journaled::new(folder.path()).acknowledge(Acknowledge::Remote);
        remote.clone().layer(layer)
    });
    let store = store.await;
    remote.up();
    let answer = pen
        .write(&store, &map_name(), vec![put("b", "1")])
        .await
        .unwrap();
    let found = one(remote.inner(), &map_name(), "b").await.unwrap();
    assert_eq!(answer.revision, Some(found.revision));
    assert!(
        one(remote.inner(), &map_name(), "a")
            .await
            .unwrap()
            .revision
            < found.revision
    );
    remote.down(ErrorKind::Unavailable);
    pen.write(&store, &map_name(), vec![put("b", "2")])
        .await
        .unwrap_err();
}

#[tokio::test]
async fn an_atomic_batch_is_acknowledged_by_the_remote() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    let revision = map.batch().insert("a", 2).insert("b", 2).commit().await;
    assert!(revision.unwrap().is_some());
    assert_eq!(stored(&remote).await.len(), 2);
}
