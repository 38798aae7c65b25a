//! Removals of keys with a commit of unknown outcome, on disk.

#[cfg(feature = "json")]
mod json {
    use std::{io::ErrorKind as Io, time::Duration};

    use persistify::{Expect, JsonFile, PersistentMap, RetryPolicy};
    use tempfile::TempDir;

    use crate::{
        json_file::shaky_disk::{Plan, ShakyDisk},
        support,
    };

    const SOON: Duration = Duration::from_millis(10);

    async fn open(files: &JsonFile) -> PersistentMap<u32> {
        let retry = RetryPolicy::default().max_attempts(1).jitter(false);
        let retry = retry.base_delay(SOON).max_delay(SOON);
        support::open(files.clone(), "stock", |map| map.retry(retry)).await
    }

    /// The disk took the bytes of a conditional save but failed to sync them. A removal of the key
    /// was acknowledged at once, but the entry was still in the file.
    #[tokio::test]
    async fn a_removal_after_a_sync_that_failed_is_not_undone() {
        for remove in [true, false] {
            let folder = TempDir::new().unwrap();
            let disk = ShakyDisk::default();
            let builder = JsonFile::builder(folder.path()).disk(disk.shared());
            let files = builder.open().await.unwrap();
            let map = open(&files).await;
            map.save_if("other", 1, Expect::Absent).await.unwrap();
            disk.set(Plan::FailAt {
                what: "sync stock.journal",
                with: Io::Other,
            });
            let error = map.save_if("k", 4, Expect::Absent).await.unwrap_err();
            assert!(error.may_have_applied(), "{error:?}");
            if remove {
                map.remove_and_save("k").await.unwrap();
            } else {
                map.clear_and_save().await.unwrap();
            }
            assert_eq!(map.get("k"), None);
            map.close().await.unwrap();
            files.close().await.unwrap();
            let files = JsonFile::open(folder.path()).await.unwrap();
            let map = open(&files).await;
            assert_eq!((map.get("k"), map.len()), (None, usize::from(remove)));
        }
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use persistify::{
        Expect, PersistentMap, Sqlite, Transaction,
        testing::{Fault, Faulty},
    };
    use tokio::time::{Duration, sleep};

    use super::super::LOST;
    use crate::support::{self, impatient};

    const SOON: Duration = Duration::from_millis(10);

    async fn open(store: &Faulty<Sqlite>, name: &str) -> PersistentMap<u32> {
        let retry = impatient().base_delay(SOON).max_delay(SOON);
        support::open(store.clone(), name, |map| map.retry(retry)).await
    }

    #[tokio::test]
    async fn a_removal_after_an_answer_that_was_lost_is_not_undone() {
        for (fault, several) in LOST
            .into_iter()
            .flat_map(|f| [(f.clone(), true), (f, false)])
        {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("maps.db");
            let store = Faulty::new(Sqlite::open(&path).await.unwrap());
            let (map, other) = (open(&store, "map").await, open(&store, "other").await);
            store.set_rule({
                let mut is_first = true;
                move |call| {
                    let batch = call.batch.iter().flat_map(|batch| batch.maps.iter());
                    let is_it = is_first && batch.flat_map(|part| &part.changes).count() > 0;
                    is_first &= !is_it;
                    if is_it { fault.clone() } else { Fault::None }
                }
            });
            let error = if several {
                let mut tx = Transaction::new(&store);
                tx.insert(&map, "k", 4).insert(&other, "k", 4);
                tx.commit().await.unwrap_err()
            } else {
                map.save_if("k", 4, Expect::Absent).await.unwrap_err()
            };
            assert!(error.may_have_applied(), "{error:?}");
            map.remove_and_save("k").await.unwrap();
            sleep(Duration::from_millis(50)).await;
            assert_eq!((map.get("k"), map.len()), (None, 0));
            assert_eq!(other.get("k"), several.then_some(4));
            map.close().await.unwrap();
            other.close().await.unwrap();
            let file = Faulty::new(Sqlite::open(&path).await.unwrap());
            assert_eq!(open(&file, "map").await.len(), 0);
        }
    }
}
