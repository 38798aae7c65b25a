//! Lost answers, forgotten writers, cancelled calls, and remotes that go back in time.

use std::{path::Path, pin::pin};

use futures_util::poll;
use persistify::{
    Batch, BatchId, Committed, ErrorKind, Journaled, Memory, Provider, ProviderExt, Result, Wanted,
    WriterId,
    testing::{Fault, Faulty},
};

use super::{journaled, kinds, restart, stats};
use crate::support::{
    Pen, as_it_is, map_name, open, put,
    records::{all, pairs, text_of},
    store, stored, write_as_another,
};

/// A remote that forgets every writer at once. Other than that it keeps the contract.
mod forgetful {
    use super::{Batch, BatchId, Committed, Memory, Provider, Result, WriterId};
    use persistify::{Layer, async_trait};

    #[derive(Clone, Debug)]
    pub(super) struct Forgetful(pub(super) Memory);

    #[async_trait]
    impl Layer for Forgetful {
        fn inner(&self) -> &dyn Provider {
            &self.0
        }

        async fn commit(&self, batch: &Batch) -> Result<Committed> {
            let mut batch = batch.clone();
            batch.id = BatchId::new(WriterId::random(), 1);
            let parts = batch.maps.iter().cloned();
            let parts = parts.map(|part| part.after_acknowledged(None));
            batch.maps = parts.collect();
            self.inner().commit(&batch).await
        }
    }
}

/// Drains until nothing is left. After each failure another writer overwrites what has arrived.
async fn drain_against_another<P: Provider>(store: &Journaled<Faulty<P>>, remote: &Faulty<P>) {
    while store.drain().await.is_err() {
        overwrite(remote.inner()).await;
    }
    overwrite(remote.inner()).await;
}

async fn overwrite(remote: &dyn Provider) {
    for record in all(remote, &map_name()).await {
        write_as_another(remote, vec![put(&record.key, "9")]).await;
    }
}

/// A batch that was applied twice would undo the write of the other one.
async fn arrives_once<P: Provider + Clone>(remote: P, is_restarted: bool) {
    let (remote, folder) = (Faulty::new(remote), tempfile::tempdir().unwrap());
    let open = || remote.clone().layer(Journaled::new(folder.path()));
    let mut store = open();
    store.load(&map_name(), Wanted::All).await.unwrap();
    let mut pen = Pen::new();
    for round in 0..6 {
        remote.down(ErrorKind::Unavailable);
        for n in 0..3 {
            let key = format!("{round} {n}");
            pen.write(&store, &map_name(), vec![put(&key, "1")])
                .await
                .unwrap();
        }
        remote.up();
        remote.fail_one_in(2);
        drain_against_another(&store, &remote).await;
        if is_restarted {
            remote.fail_next(1, Fault::After(ErrorKind::Unavailable));
            let last = vec![put(&format!("{round} last"), "1")];
            pen.write(&store, &map_name(), last).await.unwrap();
            store.drain().await.unwrap_err();
            overwrite(remote.inner()).await;
            store = restart(store, open).await;
            drain_against_another(&store, &remote).await;
        }
        remote.behave();
    }
    let records = all(remote.inner(), &map_name()).await;
    assert_eq!(records.len(), if is_restarted { 24 } else { 18 });
    for (key, value) in pairs(&records) {
        assert_eq!(value, "9", "{key} was applied twice");
    }
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_applied_once() {
    arrives_once(Memory::new(), false).await;
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_applied_once_across_restarts() {
    arrives_once(Memory::new(), true).await;
}

#[tokio::test]
async fn a_batch_is_applied_once_by_a_remote_that_has_forgotten_its_writer() {
    arrives_once(forgetful::Forgetful(Memory::new()), false).await;
    arrives_once(forgetful::Forgetful(Memory::new()), true).await;
}

#[tokio::test]
async fn a_drain_that_is_dropped_at_any_await_sends_nothing_twice() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    store.load(&map_name(), Wanted::All).await.unwrap();
    let mut pen = Pen::new();
    for polls in 0..12 {
        remote.down(ErrorKind::Unavailable);
        for n in 0..2 {
            let key = format!("{polls} {n}");
            pen.write(&store, &map_name(), vec![put(&key, "1")])
                .await
                .unwrap();
        }
        remote.up();
        {
            let mut drain = pin!(store.drain());
            for _ in 0..polls {
                if poll!(&mut drain).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        overwrite(remote.inner()).await;
        store.drain().await.unwrap();
    }
    assert_eq!(stored(&remote).await.len(), 24);
    let before = remote.batches().len();
    store.drain().await.unwrap();
    assert_eq!(remote.batches().len(), before);
}

#[tokio::test]
async fn a_commit_that_is_dropped_and_repeated_is_journaled_once() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    let mut pen = Pen::new();
    for polls in 0..8 {
        let batch = pen
            .changes(&map_name(), vec![put("a", &polls.to_string())])
            .divisible(true);
        {
            let mut commit = pin!(store.commit(&batch));
            for _ in 0..polls {
                if poll!(&mut commit).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        store.commit(&batch).await.unwrap();
        store.commit(&batch).await.unwrap();
        let found = crate::support::records::load(&store, &map_name(), Wanted::All).await;
        assert_eq!(
            pairs(&found.unwrap()),
            [("a".to_owned(), polls.to_string())]
        );
    }
    let late = Batch::new(
        BatchId::new(pen.id, 1),
        persistify::Revision::ZERO,
        pen.at,
        [persistify::MapBatch::new(
            map_name(),
            vec![put("a", "late")],
        )],
    )
    .divisible(true);
    let error = store.commit(&late).await.unwrap_err();
    assert_eq!(kinds(&error), (ErrorKind::Superseded, false));
}

fn on(memory: &Memory, folder: &Path) -> Journaled<Memory> {
    memory.clone().layer(Journaled::new(folder))
}

/// The remote is replaced by an older copy of itself while the map is open.
#[tokio::test]
async fn a_remote_that_has_lost_batches_gets_no_more_before_a_person_decides() {
    let (remote, folder) = (Memory::new(), tempfile::tempdir().unwrap());
    let store = on(&remote, folder.path());
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    store.drain().await.unwrap();
    let backup = remote.backup();
    map.insert_and_save("b", 1).await.unwrap();
    store.drain().await.unwrap();
    remote.restore(&backup);
    map.insert_and_save("c", 1).await.unwrap();
    let error = store.drain().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rewound, "{error}");
    let waiting = stats(&store);
    assert_eq!(waiting.error.unwrap().kind(), ErrorKind::Rewound);
    let mut pen = Pen::new();
    let saved = pen.write(&store, &map_name(), vec![put("d", "1")]).await;
    assert_eq!(kinds(&saved.unwrap_err()), (ErrorKind::Unusable, false));
    let loaded = store.load(&map_name(), Wanted::All).await;
    assert_eq!(loaded.unwrap_err().kind(), ErrorKind::Unusable);

    store.force("map").await.unwrap();
    assert_eq!(text_of(&remote, &map_name(), "c").await.unwrap(), "1");
    assert_eq!(stats(&store).batches, 0);
    // The map hears of the loss by itself, and decides for its other entries.
    let error = map.insert_and_save("e", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rewound);
    map.resolve_rewind(persistify::Rewind::SaveAgain)
        .await
        .unwrap();
    store.drain().await.unwrap();
    let keys = all(&remote, &map_name()).await;
    let keys: Vec<_> = keys.iter().map(|record| &*record.key).collect();
    assert_eq!(keys, ["a", "b", "c", "e"]);
}

/// The remote is replaced while the program is down, so no claim of a writer tells.
#[tokio::test]
async fn a_remote_that_has_lost_batches_is_noticed_after_a_restart() {
    let (remote, folder) = (Memory::new(), tempfile::tempdir().unwrap());
    let faulty = Faulty::new(remote.clone());
    let open = || faulty.clone().layer(Journaled::new(folder.path()));
    let store = open();
    store.load(&map_name(), Wanted::All).await.unwrap();
    let backup = remote.backup();
    let mut pen = Pen::new();
    pen.write(&store, &map_name(), vec![put("a", "1")])
        .await
        .unwrap();
    store.drain().await.unwrap();
    // The file is rewritten without what was drained.
    store.release(&map_name()).await.unwrap();
    faulty.down(ErrorKind::Unavailable);
    pen.write(&store, &map_name(), vec![put("b", "1")])
        .await
        .unwrap();
    let store = restart(store, open).await;
    remote.restore(&backup);
    faulty.up();
    let error = store.drain().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rewound, "{error}");
    assert!(all(&remote, &map_name()).await.is_empty());
    store.force("map").await.unwrap();
    assert_eq!(all(&remote, &map_name()).await.len(), 1);
}
