//! One owner a map: a replaced owner does not send its journal over newer values.

use std::{fs, path::Path};

use persistify::{ErrorKind, Journaled, Memory, Provider, ProviderExt, Wanted};

use super::{journaled, kinds, restart, stats};
use crate::support::{
    Pen, map_name, put,
    records::{load, text_of},
    store,
};

async fn value(remote: &Memory) -> String {
    text_of(remote, &map_name(), "a").await.unwrap()
}

/// Another process, with a folder of its own, becomes the owner and writes.
async fn replace(remote: &Memory, folder: &Path) -> Journaled<Memory> {
    let other = remote.clone().layer(Journaled::new(folder));
    other.load(&map_name(), Wanted::All).await.unwrap();
    let written = vec![put("a", "2")];
    Pen::new()
        .write(&other, &map_name(), written)
        .await
        .unwrap();
    other.drain().await.unwrap();
    other
}

#[tokio::test]
async fn an_owner_that_was_replaced_while_the_remote_was_down_keeps_its_journal() {
    let [own, of_other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let remote = store();
    let store = journaled(&remote, own.path());
    store.load(&map_name(), Wanted::All).await.unwrap();
    let mut pen = Pen::new();
    remote.down(ErrorKind::Unavailable);
    pen.write(&store, &map_name(), vec![put("a", "1")])
        .await
        .unwrap();
    let other = replace(remote.inner(), of_other.path()).await;
    remote.up();
    // Before and after a restart.
    for _ in 0..2 {
        let error = store.drain().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Superseded);
    }
    let store = restart(store, || journaled(&remote, own.path())).await;
    let error = store.drain().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Superseded);
    let waiting = stats(&store);
    assert_eq!(waiting.error.unwrap().kind(), ErrorKind::Superseded);
    assert_eq!(
        (waiting.batches, value(remote.inner()).await),
        (1, "2".into())
    );
    let error = load(&store, &map_name(), Wanted::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    let saved = pen.write(&store, &map_name(), vec![put("a", "3")]).await;
    assert_eq!(kinds(&saved.unwrap_err()), (ErrorKind::Unusable, false));
    let conditional =
        put("a", "3").expect(persistify::Expect::Present, persistify::Otherwise::Fail);
    let saved = pen.write(&store, &map_name(), vec![conditional]).await;
    assert_eq!(kinds(&saved.unwrap_err()), (ErrorKind::Unusable, false));

    let exported = store.export("map").await.unwrap();
    assert_eq!(exported.lines().count(), 1);
    assert!(exported.contains(r#""key":"a""#), "{exported}");
    store.force("map").await.unwrap();
    assert_eq!(value(remote.inner()).await, "1");
    assert_eq!(stats(&store).batches, 0);
    // Now the other one is replaced.
    Pen::new()
        .write(&other, &map_name(), vec![put("a", "4")])
        .await
        .unwrap();
    assert_eq!(
        other.drain().await.unwrap_err().kind(),
        ErrorKind::Superseded
    );
    assert_eq!(value(remote.inner()).await, "1");
    assert_eq!(other.discard("map").await.unwrap(), 1);
    other.load(&map_name(), Wanted::All).await.unwrap();
    Pen::new()
        .write(&other, &map_name(), vec![put("a", "5")])
        .await
        .unwrap();
    other.drain().await.unwrap();
    assert_eq!(value(remote.inner()).await, "5");
}

#[tokio::test]
async fn an_open_takes_the_map_over_and_back_if_nothing_waits() {
    let [own, of_other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let remote = store();
    let store = journaled(&remote, own.path());
    store.load(&map_name(), Wanted::All).await.unwrap();
    let other = replace(remote.inner(), of_other.path()).await;
    store.load(&map_name(), Wanted::All).await.unwrap();
    Pen::new()
        .write(&store, &map_name(), vec![put("a", "3")])
        .await
        .unwrap();
    store.drain().await.unwrap();
    assert_eq!(value(remote.inner()).await, "3");
    Pen::new()
        .write(&other, &map_name(), vec![put("a", "4")])
        .await
        .unwrap();
    assert_eq!(
        other.drain().await.unwrap_err().kind(),
        ErrorKind::Superseded
    );
}

#[tokio::test]
async fn a_discarded_journal_never_reaches_the_remote() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    store.load(&map_name(), Wanted::All).await.unwrap();
    remote.down(ErrorKind::Unavailable);
    for n in ["1", "2"] {
        Pen::new()
            .write(&store, &map_name(), vec![put("a", n)])
            .await
            .unwrap();
    }
    assert_eq!(store.discard("map").await.unwrap(), 2);
    let store = restart(store, || journaled(&remote, folder.path())).await;
    remote.up();
    store.drain().await.unwrap();
    assert!(
        load(&store, &map_name(), Wanted::All)
            .await
            .unwrap()
            .is_empty()
    );
}

/// An older copy of the file is put back: the remote has all of it already.
#[tokio::test]
async fn a_journal_that_was_restored_from_a_backup_is_not_sent_again() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let open = || journaled(&remote, folder.path());
    let store = open();
    store.load(&map_name(), Wanted::All).await.unwrap();
    remote.down(ErrorKind::Unavailable);
    let mut pen = Pen::new();
    pen.write(&store, &map_name(), vec![put("a", "1")])
        .await
        .unwrap();
    let file = folder.path().join("map.pending");
    let backup = fs::read(&file).unwrap();
    pen.write(&store, &map_name(), vec![put("a", "2")])
        .await
        .unwrap();
    remote.up();
    store.drain().await.unwrap();
    pen.write(&store, &map_name(), vec![put("a", "3")])
        .await
        .unwrap();
    store.drain().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    fs::write(&file, backup).unwrap();
    let remote = persistify::testing::Faulty::new(reopened(&remote));
    let store = remote.clone().layer(Journaled::new(folder.path()));
    store.drain().await.unwrap();
    assert_eq!(value(remote.inner()).await, "3");
    // Numbers go on above those that the remote has.
    store.load(&map_name(), Wanted::All).await.unwrap();
    pen.write(&store, &map_name(), vec![put("a", "4")])
        .await
        .unwrap();
    store.drain().await.unwrap();
    assert_eq!(value(remote.inner()).await, "4");
}

/// The contents of a store in memory that was closed.
fn reopened(remote: &crate::support::Store) -> Memory {
    let memory = Memory::new();
    memory.restore(remote.inner());
    memory
}
