//! Conditional commits and commits of several maps, whose outcome is determined even if the
//! connection is lost.

use persistify::Transaction;

use super::{
    cuts::Far,
    proxy::{End, Hold},
    writers::impatient,
    *,
};

async fn open(store: &Postgres, name: &str) -> PersistentMap<u64> {
    PersistentMap::builder(store.clone(), name)
        .commit_timeout(Duration::from_secs(1))
        .retry(impatient())
        .open()
        .await
        .unwrap()
}

async fn stored(store: &Postgres, map: &str) -> (String, Revision) {
    let record = one(store, &name(map), "a").await.unwrap();
    (text(&record).to_owned(), record.revision)
}

#[tokio::test]
async fn a_conditional_save_with_a_lost_commit_is_applied_once() {
    for end in [End::Cut, End::Reset] {
        let far = Far::new().await;
        let map = open(&far.store, "map").await;
        let mut seen = map.save_if("a", 0, Expect::Absent).await.unwrap();
        for n in 1..5 {
            if n % 2 == 0 {
                far.proxy.stop_commits(1, end);
            } else {
                far.proxy.lose_answers(1, end);
            }
            let next = map.save_if("a", n, Expect::At(seen)).await.unwrap();
            assert_eq!((next > seen, map.get("a")), (true, Some(n)));
            assert_eq!(stored(&far.store, "map").await, (n.to_string(), next));
            seen = next;
        }
        assert_eq!((far.proxy.lost(), far.proxy.stopped()), (2, 2));
        map.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_transaction_with_a_lost_commit_is_applied_once() {
    let far = Far::new().await;
    let maps = [
        open(&far.store, "map").await,
        open(&far.store, "other").await,
    ];
    let mut seen = [Expect::Absent; 2];
    for n in 0..4 {
        if n % 2 == 0 {
            far.proxy.lose_answers(1, End::Cut);
        } else {
            far.proxy.stop_commits(1, End::Reset);
        }
        let mut tx = Transaction::new(&far.store);
        for (map, expect) in maps.iter().zip(seen) {
            tx.insert(map, "a", n).require(map, "a", expect);
        }
        let revision = tx.commit().await.unwrap().unwrap();
        for name in ["map", "other"] {
            let expected = (n.to_string(), revision);
            assert_eq!(stored(&far.store, name).await, expected);
        }
        assert!(maps.iter().all(|map| map.get("a") == Some(n)));
        seen = [Expect::At(revision); 2];
    }
    assert_eq!((far.proxy.lost(), far.proxy.stopped()), (2, 2));
}

/// Loses the answer to a commit and all connections, so that its outcome stays unknown. Returns
/// the error.
async fn lose_sight(far: &Far, landed: bool, commit: impl Future<Output = Result<()>>) -> Error {
    if !landed {
        far.proxy.stop_commits(1_000, End::Cut);
        return commit.await.unwrap_err();
    }
    far.proxy.hold(Hold::Commits);
    let lose = async {
        eventually("a commit", || far.proxy.held() == 1).await;
        far.proxy.refuse(true);
        far.proxy.lose_answers(1, End::Cut);
        far.proxy.let_go();
    };
    let (result, ()) = tokio::join!(commit, lose);
    assert_eq!(far.proxy.lost(), 1);
    result.unwrap_err()
}

/// The outcome stays unknown until another process has written. Then a commit that was applied
/// is reported as saved, and one that was not is never applied.
#[tokio::test]
async fn a_conditional_save_of_unknown_outcome_conflicts_with_a_later_write() {
    for landed in [true, false] {
        for several in [false, true] {
            let far = Far::new().await;
            let direct = far.database.connect().await;
            let narrow = Postgres::builder(far.database.url_through(&far.proxy));
            let narrow = narrow
                .connect_timeout(Duration::from_secs(1))
                .max_connections(1);
            let narrow = narrow.connect().await.unwrap();
            let maps = [open(&narrow, "map").await, open(&narrow, "other").await];
            let first = maps[0].save_if("a", 1, Expect::Absent).await.unwrap();
            maps[1].save_if("a", 1, Expect::Absent).await.unwrap();
            let commit = async {
                if !several {
                    let saved = maps[0].save_if("a", 2, Expect::At(first)).await;
                    return saved.map(drop);
                }
                let mut tx = Transaction::new(&narrow);
                tx.insert(&maps[0], "a", 2)
                    .require(&maps[0], "a", Expect::At(first));
                tx.insert(&maps[1], "b", 2);
                tx.commit().await.map(drop)
            };
            let error = lose_sight(&far, landed, commit).await;
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert!(error.may_have_applied(), "{error:?}");
            let before = stored(&direct, "map").await;
            assert_eq!(before.0, if landed { "2" } else { "1" });
            let mut pen = Pen::new();
            let ninth = pen.put(&direct, &name("map"), "a", "9").await;
            far.proxy.refuse(false);
            far.proxy.stop_commits(0, End::Cut);
            let conflict = loop {
                let save = maps[0].save_if("a", 3, Expect::At(before.1)).await;
                let error = save.unwrap_err();
                if error.kind() != ErrorKind::Unavailable {
                    break error;
                }
            };
            assert_eq!(conflict.kind(), ErrorKind::Conflict, "{conflict:?}");
            assert_eq!(conflict.found().unwrap().revision, ninth);
            assert_eq!(stored(&direct, "map").await, ("9".to_owned(), ninth));
            let other = text_of(&direct, &name("other"), "b").await;
            assert_eq!(other.is_some(), landed && several);
            assert_eq!(
                (maps[0].get("a"), maps[1].get("b")),
                (Some(9), other.map(|_| 2))
            );
            for map in &maps {
                map.close().await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditional_saves_of_sixteen_tasks_on_two_maps_are_serializable() {
    let database = Database::fresh();
    let stores = [database.connect().await, database.connect().await];
    crate::conditional::linear::on_two_stores(stores, 6).await;
}

#[tokio::test]
async fn transactions_on_two_maps_through_failures_keep_them_equal() {
    let database = Database::fresh();
    let delay = Duration::from_millis(10);
    let left = database.witness();
    crate::conflicts::history::histories(2, delay, async || {
        left.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        database.connect().await
    })
    .await;
}
