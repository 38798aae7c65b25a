//! Statements that are canceled on the server at random moments.

use super::*;

/// Cancels the statements of the other sessions at random intervals.
fn cancel_others(witness: &Witness) {
    witness.execute(
        "DO $$ BEGIN
            FOR n IN 1..1000 LOOP
                PERFORM pg_sleep(random() * 0.003);
                PERFORM pg_stat_clear_snapshot();
                PERFORM pg_cancel_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'persistify';
            END LOOP;
        END $$",
    );
}

/// All messages of a commit are sent at once. The first was canceled before it began the
/// transaction, and each of the following changes was applied on its own: a map was cleared, and
/// its new entries were missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_canceled_at_any_moment_is_applied_whole_or_not_at_all() {
    let database = Database::fresh();
    let store = database.connect().await;
    let (map, mut pen) = (name("map"), Pen::new());
    let state = |n: u64| vec![put("k", &n.to_string()), put(&format!("only {n}"), "0")];
    let mut last = 0;
    pen.write(&store, &map, state(last)).await.unwrap();
    let witness = database.witness();
    let cancelling = std::thread::spawn({
        let witness = database.witness();
        move || cancel_others(&witness)
    });
    let (mut n, mut failures) = (0, 0);
    while !cancelling.is_finished() {
        n += 1;
        let part = MapBatch::new(map.clone(), state(n)).clearing(true);
        match store.commit(&pen.batch(vec![part])).await {
            Ok(_) => last = n,
            Err(failed) => {
                assert!(!failed.may_have_applied(), "{failed:?}");
                failures += 1;
            }
        }
        let found = witness.rows(format!("SELECT key, value::text FROM {}", table_of("map")));
        let mut found: Vec<(String, String)> =
            found.iter().map(|row| (row.get(0), row.get(1))).collect();
        found.sort();
        let expected = [
            ("k", last.to_string()),
            (&*format!("only {last}"), "0".into()),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value));
        assert_eq!(found, expected, "after {n}, {failures} failures");
    }
    println!("{n} commits, {failures} cancelled");
    assert!(failures > 0);
}
