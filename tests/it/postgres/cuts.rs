//! Connections that are cut, reset, delayed or half open, even between a COMMIT and its answer.

use super::{
    proxy::{End, Hold, Proxy},
    server::Server,
    writers::{Writers, numbers, open},
    *,
};

pub(super) struct Far {
    pub(super) proxy: Proxy,
    pub(super) database: Database,
    /// Connected through the proxy.
    pub(super) store: Postgres,
}

impl Far {
    pub(super) async fn new() -> Self {
        let proxy = Proxy::to(Server::shared().address());
        let database = Database::on(Server::shared());
        let builder = Postgres::builder(database.url_through(&proxy));
        let builder = builder
            .connect_timeout(Duration::from_secs(1))
            .max_connections(4);
        let store = builder.connect().await.unwrap();
        Self {
            proxy,
            database,
            store,
        }
    }
}

/// Changes with conditions that hold only once.
fn conditional(revision: Revision) -> Vec<Change> {
    vec![
        put("absent", "1").expect(Expect::Absent, Otherwise::Fail),
        put("at", "2").expect(Expect::At(revision), Otherwise::Fail),
        Change::delete("present").expect(Expect::Present, Otherwise::Fail),
        put("skipped", "3").expect(Expect::Present, Otherwise::Skip),
        put("any", "4"),
    ]
}

async fn prepare(far: &Far, pen: &mut Pen, map: &MapName) -> Revision {
    let clear = MapBatch::new(map.clone(), vec![put("at", "0"), put("present", "0")]);
    let batch = pen.batch(vec![clear.clearing(true)]);
    far.store.commit(&batch).await.unwrap().revision.unwrap()
}

/// Repeats the identical batch until its outcome is known, as a map does.
async fn insist(store: &Postgres, batch: &Batch) -> Result<Committed> {
    for _ in 0..20 {
        match store.commit(batch).await {
            Err(failed) if failed.may_have_applied() => {
                assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
            }
            answered => return answered,
        }
    }
    panic!("no answer after twenty times");
}

fn revisions(database: &Database) -> Vec<(String, i64)> {
    let sql = format!("SELECT key, revision FROM {} ORDER BY key", table_of("map"));
    let rows = database.witness().rows(sql);
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The commit was applied and its answer was lost. No change takes effect twice, and no
/// condition fails because of the batch itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_with_a_lost_answer_is_neither_failed_nor_conflicting() {
    let far = Far::new().await;
    let (map, mut pen) = (name("map"), Pen::new());
    for (n, end) in (1..).zip([End::Cut, End::Reset]) {
        let revision = prepare(&far, &mut pen, &map).await;
        let batch = pen.changes(&map, conditional(revision));
        far.proxy.lose_answers(1, end);
        let first = far.store.commit(&batch).await;
        assert_eq!(far.proxy.lost(), n, "it does not commit by COMMIT");
        let landed = revisions(&far.database);
        assert_eq!(landed.len(), 3);
        if let Err(failed) = first {
            assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
            assert!(failed.may_have_applied(), "{failed:?}");
        }
        let answer = insist(&far.store, &batch).await.unwrap();
        assert_eq!(answer.skipped.len(), 1);
        let revision = i64::try_from(answer.revision.unwrap().get()).unwrap();
        let expected = ["absent", "any", "at"].map(|key| (key.to_owned(), revision));
        assert_eq!(landed, expected);
        assert_eq!(far.store.commit(&batch).await.unwrap(), answer);
        assert_eq!(revisions(&far.database), expected);
        // The conditions of a new batch are checked.
        let again = pen.changes(&map, conditional(Revision::new(1)));
        assert_eq!(
            error(far.store.commit(&again).await).kind(),
            ErrorKind::Conflict
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_did_not_arrive_is_applied_once() {
    let far = Far::new().await;
    let (map, mut pen) = (name("map"), Pen::new());
    for (n, end) in (1..).zip([End::Cut, End::Reset]) {
        let revision = prepare(&far, &mut pen, &map).await;
        let before = revisions(&far.database);
        let batch = pen.changes(&map, conditional(revision));
        far.proxy.stop_commits(1, end);
        let first = far.store.commit(&batch).await;
        assert_eq!(far.proxy.stopped(), n);
        if let Err(failed) = first {
            assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
            assert!(failed.may_have_applied(), "{failed:?}");
            assert_eq!(revisions(&far.database), before);
        }
        let answer = insist(&far.store, &batch).await.unwrap();
        assert_eq!(far.store.commit(&batch).await.unwrap(), answer);
        assert_eq!(revisions(&far.database).len(), 3);
    }
}

/// A commit in flight whose client is gone is applied before the next commit of the same writer,
/// or never, but not after it. This holds whether only its COMMIT or all its messages are still
/// on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_given_up_does_not_land_late() {
    let nexts = [Next::Other, Next::Repeat, Next::Elsewhere];
    let all = nexts.map(|next| [(Hold::Commits, next), (Hold::All, next)]);
    for (held, next) in all.into_iter().flatten() {
        let far = Far::new().await;
        let (map, other, mut pen) = (name("map"), name("other"), Pen::new());
        pen.put(&far.store, &map, "k", "0").await;
        pen.put(&far.store, &other, "k", "0").await;
        let near = far.database.connect().await;
        let batch = pen.changes(&map, vec![put("k", "1"), put("l", "1")]);
        far.proxy.hold(held);
        let given_up = {
            let (store, batch) = (far.store.clone(), batch.clone());
            tokio::spawn(async move { store.commit(&batch).await })
        };
        eventually("a commit on its way", || far.proxy.held() == 1).await;
        given_up.abort();
        let batch = match next {
            Next::Repeat => batch,
            Next::Other => pen.changes(&map, vec![put("k", "2"), Change::delete("l")]),
            Next::Elsewhere => pen.changes(&other, vec![put("k", "2")]),
        };
        let committing = tokio::spawn(async move { insist(&near, &batch).await });
        // The next commit waits for the first, or does not find it.
        let witness = far.database.witness();
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("it waits", || {
            committing.is_finished() || witness.number(waiting) > 0
        })
        .await;
        let committed_first = committing.is_finished();
        far.proxy.let_go();
        let committed = committing.await.unwrap().unwrap();
        // The first commit is applied by now, or never.
        let at_once = numbers(&far.database.witness());
        eventually("it is over", || far.proxy.connections() == 0).await;
        let found = numbers(&far.database.witness());
        assert_eq!(found, at_once, "{held:?} {next:?}");
        let rows = revisions(&far.database);
        let revision = i64::try_from(committed.revision.unwrap().get()).unwrap();
        match next {
            Next::Repeat => assert_eq!((found["k"], rows.len()), (1, 2)),
            Next::Other => assert_eq!((found["k"], rows.len()), (2, 1)),
            Next::Elsewhere => {
                assert!(!committed_first || found["k"] == 0, "it landed late");
                continue;
            }
        }
        assert!(rows.iter().all(|(_, found)| *found == revision), "{rows:?}");
    }
}

/// The next batch of the same writer.
#[derive(Clone, Copy, Debug)]
enum Next {
    Repeat,
    Other,
    /// To another map.
    Elsewhere,
}

/// A program that hangs during a commit with open connections does not block other writers
/// forever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_within_a_transaction_is_ended() {
    let far = Far::new().await;
    let (map, mut pen) = (name("map"), Pen::new());
    pen.put(&far.store, &map, "k", "0").await;
    far.proxy.hold(Hold::Commits);
    let (store, batch) = (far.store.clone(), pen.changes(&map, vec![put("k", "1")]));
    let still = tokio::spawn(async move { store.commit(&batch).await });
    eventually("a COMMIT on its way", || far.proxy.held() == 1).await;
    let near = far.database.connect().await;
    let batch = Pen::new().changes(&map, vec![put("k", "2")]);
    let begun = Instant::now();
    while let Err(failed) = near.commit(&batch).await {
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
        assert!(!failed.may_have_applied(), "{failed:?}");
        assert!(begun.elapsed() < Duration::from_secs(45), "{failed:?}");
    }
    far.proxy.let_go();
    // The commit arrives too late and fails.
    let failed = error(still.await.unwrap());
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
    assert_eq!(numbers(&far.database.witness())["k"], 2);
}

/// COMMITs do not arrive, lose their answers, or end with their connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_fail_in_every_way_lose_nothing() {
    let far = Far::new().await;
    let map = open(far.store.clone()).await;
    let writers = Writers::at(&map);
    for round in 0..30 {
        let end = if round % 2 == 0 { End::Cut } else { End::Reset };
        match round % 3 {
            0 => far.proxy.lose_answers(1 + round % 4, end),
            1 => far.proxy.stop_commits(1 + round % 4, end),
            _ => far.proxy.end_all(end),
        }
        writers.go_on(10).await;
        writers.check(&far.database);
    }
    assert!(far.proxy.lost() > 5 && far.proxy.stopped() > 5);
    writers.finish(&far.database).await;
}

/// The server is unreachable for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_server_loses_nothing() {
    let far = Far::new().await;
    let map = open(far.store.clone()).await;
    let writers = Writers::at(&map);
    for end in [End::Cut, End::Reset, End::Cut] {
        writers.go_on(50).await;
        far.proxy.refuse(true);
        far.proxy.end_all(end);
        tokio::time::sleep(Duration::from_millis(150)).await;
        far.proxy.refuse(false);
    }
    writers.go_on(50).await;
    writers.finish(&far.database).await;
}

/// Bytes of one side, or of both, are lost without an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_lose_nothing() {
    for (from_client, from_server) in [(true, false), (false, true), (true, true)] {
        let far = Far::new().await;
        let map = open(far.store.clone()).await;
        let writers = Writers::at(&map);
        writers.go_on(50).await;
        far.proxy.half_open(from_client, from_server);
        writers.go_on(50).await;
        writers.finish(&far.database).await;
    }
}

/// Connections are accepted but never answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_a_connection_is_unavailable_in_time() {
    let far = Far::new().await;
    far.proxy.deafen(true);
    far.proxy.end_all(End::Reset);
    let begun = Instant::now();
    let failed = error(far.store.ping().await);
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    far.proxy.deafen(false);
    far.store.ping().await.unwrap();
}

/// Like the test above, but the connection has worked before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_unavailable_in_time() {
    let far = Far::new().await;
    let builder = Postgres::builder(far.database.url_through(&far.proxy));
    let builder = builder.statement_timeout(Duration::from_millis(500));
    let store = builder.connect().await.unwrap();
    store.ping().await.unwrap();
    far.proxy.half_open(true, true);
    let asked = tokio::time::timeout(Duration::from_secs(20), store.ping()).await;
    if let Err(failed) = asked.expect("an answer in time") {
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_is_no_failure() {
    let far = Far::new().await;
    let map = open(far.store.clone()).await;
    far.proxy.delay(Duration::from_millis(15));
    let writers = Writers::at(&map);
    writers.go_on(20).await;
    writers.check(&far.database);
    writers.finish(&far.database).await;
}

/// After a commit is dropped at any await, its connection returns to the pool without an open
/// transaction, and the commit is applied whole or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_commit_leaves_no_transaction_open() {
    let database = Database::on(Server::shared());
    let builder = Postgres::builder(database.url()).max_connections(1);
    let store = builder.connect().await.unwrap();
    let (map, mut pen) = (name("map"), Pen::new());
    pen.put(&store, &map, "k", "0").await;
    let witness = database.witness();
    let open = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = '{}' AND state LIKE 'idle in transaction%'",
        database.name()
    );
    let mut last = 0;
    for number in 1..60_u64 {
        let changes = vec![put("k", &number.to_string()), put("l", &number.to_string())];
        let batch = pen.changes(&map, changes);
        let polls = usize::try_from(number).unwrap() % 20;
        let finished = poll_times(store.commit(&batch), polls).await;
        let dropped = Instant::now();
        eventually("nothing is open", || witness.number(&open) == 0).await;
        // Immediately, not only after a timeout of the server.
        assert!(dropped.elapsed() < Duration::from_secs(10));
        // Another commit, on the only connection.
        pen.put(&store, &map, "other", &number.to_string()).await;
        let found = numbers(&witness);
        let whole = found.get("l").copied().unwrap_or(0);
        assert_eq!(found["k"], whole);
        assert!(
            whole == number || (whole == last && !finished),
            "{whole} in round {number}"
        );
        last = whole;
        let late = store.commit(&batch).await;
        assert_eq!(error(late).kind(), ErrorKind::Superseded);
    }
}

/// Polls a future whenever it is woken and drops it when it is pending after more than `times`
/// polls. Returns whether it completed.
async fn poll_times<T>(future: impl Future<Output = Result<T>>, times: usize) -> bool {
    let mut future = Box::pin(future);
    let mut polls = 0;
    std::future::poll_fn(|context| {
        polls += 1;
        match future.as_mut().poll(context) {
            std::task::Poll::Ready(done) => {
                done.map(drop).unwrap();
                std::task::Poll::Ready(true)
            }
            std::task::Poll::Pending if polls > times => std::task::Poll::Ready(false),
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    })
    .await
}
