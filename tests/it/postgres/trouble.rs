//! A server that answers but cannot be used until it is repaired.

use super::{
    keeper::Keeper,
    server::{Server, Stop},
    writers::{impatient, numbers, open},
    *,
};

/// Checks that a fault of the whole store loses nothing and blames no entry, and that pending
/// changes are saved without a restart once it is repaired. Returns the error.
async fn stays_pending_until(
    map: &PersistentMap<u64>,
    kind: ErrorKind,
    database: &Database,
    put_right: impl FnOnce(&Witness),
) -> Error {
    let failed = error(map.insert_and_save("meanwhile", 2).await);
    assert_eq!(failed.kind(), kind, "{failed:?}");
    map.insert("also", 3);
    assert_eq!(map.pending(), 2);
    assert!(map.refused().is_empty());
    put_right(&database.witness());
    eventually("all is saved", || map.pending() == 0).await;
    assert_eq!(numbers(&database.witness()), map.snapshot());
    failed
}

async fn one_saved(database: &Database) -> PersistentMap<u64> {
    let map = open(database.connect().await).await;
    map.insert_and_save("before", 1).await.unwrap();
    map
}

async fn altered(alter: &str, back: &str) {
    let database = Database::fresh();
    let map = one_saved(&database).await;
    database.witness().execute(alter);
    let failed = stays_pending_until(&map, ErrorKind::Unusable, &database, |witness| {
        witness.execute(back);
    });
    let failed = failed.await;
    assert!(!failed.may_have_applied());
    assert_eq!(failed.map(), Some("map"), "{failed}");
    map.close().await.unwrap();
    let map = open(database.connect().await).await;
    assert_eq!(map.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_gone_needs_a_person() {
    altered(
        "ALTER TABLE map_map RENAME TO away",
        "ALTER TABLE away RENAME TO map_map",
    )
    .await;
}

/// The provider must not hide the loss of a dropped table by creating an empty one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_dropped_is_not_made_anew() {
    let database = Database::fresh();
    let map = one_saved(&database).await;
    database.witness().execute("DROP TABLE map_map");
    let failed = error(map.insert_and_save("k", 2).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
    let store = database.connect().await;
    let failed = error(load(&store, &name("map"), Wanted::All).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
    let failed = error(
        Pen::new()
            .write(&store, &name("map"), vec![put("k", "1")])
            .await,
    );
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_is_gone_needs_a_person() {
    altered(
        "ALTER TABLE map_map RENAME value TO away",
        "ALTER TABLE map_map RENAME away TO value",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_of_the_wrong_type_needs_a_person() {
    for (column, wrong, right) in [
        ("value", "bigint", "jsonb"),
        ("value", "bytea", "jsonb"),
        ("revision", "timestamptz", "bigint"),
        ("updated_at", "boolean", "timestamptz"),
    ] {
        let to = |kind, value: &str| {
            format!("ALTER TABLE map_map ALTER {column} TYPE {kind} USING {value}")
        };
        let (away, back) = match wrong {
            "bigint" => ("value::text::bigint", "value::text::jsonb"),
            "bytea" => ("value::text::bytea", "convert_from(value, 'UTF8')::jsonb"),
            "timestamptz" => (
                "to_timestamp(revision)",
                "extract(epoch FROM revision)::bigint",
            ),
            _ => ("NULL", "NULL"),
        };
        altered(&to(wrong, away), &to(right, back)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_turns_read_only_needs_a_person() {
    let database = Database::fresh();
    let map = one_saved(&database).await;
    map.close().await.unwrap();
    let set = |to: &str| {
        format!(
            "ALTER DATABASE {} SET default_transaction_read_only = {to}",
            database.name()
        )
    };
    database.admin().execute(set("on"));
    // The setting applies to new connections; reads still work.
    let store = database.connect().await;
    assert_eq!(text_of(&store, &name("map"), "before").await.unwrap(), "1");
    let failed = error(store.ping().await);
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
    let map = open(store).await;
    let set_off = set("off");
    let terminate = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = '{}' AND pid <> pg_backend_pid()",
        database.name()
    );
    let failed = stays_pending_until(&map, ErrorKind::Unusable, &database, move |witness| {
        witness.execute("SET default_transaction_read_only = off");
        witness.execute(set_off);
        // As an operator would do it: sessions keep the settings they started with.
        witness.execute(terminate);
    });
    assert!(failed.await.to_string().contains("read-only"));
}

/// A standby can be read, and written to once it is promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_read_only_until_it_is_promoted() {
    let primary = Server::private();
    let database = Database::on(&primary);
    one_saved(&database).await.close().await.unwrap();
    let standby = primary.standby();
    let store = Postgres::connect(standby.url(database.name()))
        .await
        .unwrap();
    assert_eq!(text_of(&store, &name("map"), "before").await.unwrap(), "1");
    let mut pen = Pen::new();
    let failed = error(pen.write(&store, &name("map"), vec![put("k", "1")]).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
    assert!(!failed.may_have_applied());
    // Of several servers, the one that accepts writes is chosen. The first in the list was
    // chosen even if it was the standby, and old values were loaded.
    let either = format!(
        "postgres://postgres@{},{}/{}",
        standby.address(),
        primary.address(),
        database.name()
    );
    let either = Postgres::connect(either).await.unwrap();
    pen.put(&either, &name("map"), "before", "1").await;
    let map = open(store).await;
    let failed = error(map.insert_and_save("meanwhile", 2).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
    primary.stop(Stop::Killed);
    let witness = Witness::connect(&standby.url(database.name()));
    witness.execute("SELECT pg_promote()");
    eventually("it is saved", || map.pending() == 0).await;
    assert_eq!(numbers(&witness), map.snapshot());
    primary.start();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_needs_a_person() {
    let database = Database::on(Server::shared());
    let role = database.name().to_owned();
    one_saved(&database).await.close().await.unwrap();
    let grants = "persistify_meta, persistify_maps, persistify_writers, persistify_answers, persistify_tombstones";
    database.witness().execute(format!(
        "CREATE ROLE {role} LOGIN;
         GRANT SELECT, INSERT, UPDATE, DELETE ON {grants} TO {role};
         GRANT SELECT ON map_map TO {role}"
    ));
    let url = database.url().replace("postgres@", &format!("{role}@"));
    let map = open(Postgres::connect(url).await.unwrap()).await;
    assert_eq!(map.get("before"), Some(1));
    let failed = stays_pending_until(&map, ErrorKind::Unusable, &database, |witness| {
        witness.execute(format!("GRANT ALL ON map_map TO {role}"));
    });
    let failed = failed.await;
    assert!(failed.to_string().contains("permit"), "{failed}");
}

/// Another client locks the table for five seconds. Reads and writes continue in memory, and
/// pending changes are committed when the lock is released.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_is_waited_for() {
    let database = Database::fresh();
    let map = one_saved(&database).await;
    let other = database.witness();
    other.execute("BEGIN; LOCK TABLE map_map IN ACCESS EXCLUSIVE MODE");
    let begun = Instant::now();
    let mut failures = map.failures();
    while begun.elapsed() < Duration::from_secs(5) {
        map.insert("k", u64::try_from(begun.elapsed().as_millis()).unwrap());
        assert!(map.get("k").is_some());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(map.pending(), 1);
    other.execute("COMMIT");
    eventually("it is saved", || map.pending() == 0).await;
    assert_eq!(numbers(&database.witness()), map.snapshot());
    while let Ok(failure) = failures.try_recv() {
        assert_eq!(
            failure.error.kind(),
            ErrorKind::Unavailable,
            "{:?}",
            failure.error
        );
    }
}

/// A statement that waits for a lock fails within its timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_unavailable_with_nothing_applied() {
    let database = Database::fresh();
    one_saved(&database).await.close().await.unwrap();
    let builder = Postgres::builder(database.url());
    let store = builder
        .statement_timeout(Duration::from_millis(200))
        .connect()
        .await
        .unwrap();
    let other = database.witness();
    other.execute("BEGIN; LOCK TABLE map_map IN ACCESS EXCLUSIVE MODE");
    let (mut pen, map) = (Pen::new(), name("map"));
    let batch = pen.changes(&map, vec![put("k", "1")]);
    let begun = Instant::now();
    let failed = error(store.commit(&batch).await);
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
    assert!(!failed.may_have_applied(), "{failed:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    other.execute("COMMIT");
    store.commit(&batch).await.unwrap();
    assert_eq!(text_of(&store, &map, "k").await.unwrap(), "1");
}

/// A column of the catalog was altered. This was reported as a temporary outage, so no operator
/// would have repaired it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_list_of_the_maps_needs_a_person() {
    let database = Database::fresh();
    one_saved(&database).await.close().await.unwrap();
    let alter = |kind: &str| {
        format!(
            "ALTER TABLE persistify_maps ALTER revision DROP DEFAULT, ALTER revision TYPE {kind}"
        )
    };
    database.witness().execute(alter("numeric"));
    let store = database.connect().await;
    let (mut pen, map) = (Pen::new(), name("map"));
    let batch = pen.changes(&map, vec![put("k", "1")]);
    for failed in [
        error(load(&store, &map, Wanted::All).await),
        error(store.commit(&batch).await),
    ] {
        assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
        assert!(!failed.may_have_applied(), "{failed:?}");
    }
    database.witness().execute(alter("bigint"));
    store.commit(&batch).await.unwrap();
}

/// A database may set the strictest isolation level as its default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_isolation_of_the_database_is_no_trouble() {
    let database = Database::fresh();
    database.admin().execute(format!(
        "ALTER DATABASE {} SET default_transaction_isolation = 'serializable'",
        database.name()
    ));
    let store = database.connect().await;
    let writing = (0..4).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut pen = Pen::new();
            for n in 0..30 {
                pen.put(&store, &name("map"), "k", &n.to_string()).await;
            }
        })
    });
    for written in writing.collect::<Vec<_>>() {
        written.await.unwrap();
    }
    assert_eq!(text_of(&store, &name("map"), "k").await.unwrap(), "29");
}

/// The server's disk is full until a file is deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_needs_a_person() {
    let Some(keeper) = Keeper::with_small_disk(24 << 20) else {
        println!("left out: only root can mount a small file system, on Linux");
        return;
    };
    let server = Server::kept_by(keeper, &[]);
    let database = Database::on(&server);
    let builder = PersistentMap::builder(database.connect().await, "map");
    let map: PersistentMap<String> = builder.retry(impatient()).open().await.unwrap();
    map.insert_and_save("before", "1".to_owned()).await.unwrap();
    server.shell("mkdir small/space && head -c 12000000 /dev/zero >small/ballast");
    let space = server.folder().join("small/space");
    let witness = database.witness();
    witness.execute(format!(
        "CREATE TABLESPACE small LOCATION '{}'",
        space.display()
    ));
    witness.execute("ALTER TABLE map_map SET TABLESPACE small");
    let large = || {
        let letters = std::iter::repeat_with(|| char::from(rand::random_range(b' '..b'~')));
        letters.take(1 << 20).collect::<String>()
    };
    let mut saved = Vec::new();
    let failed = loop {
        let key = format!("key {}", saved.len());
        match map.insert_and_save(&key, large()).await {
            Ok(_) => saved.push(key),
            Err(failed) => break failed,
        }
    };
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
    assert!(failed.to_string().contains("disk"), "{failed}");
    assert_eq!(map.refused().len(), 0);
    assert!(map.pending() >= 1, "{:?}", map.health().borrow());
    let rows = witness.rows("SELECT key FROM map_map");
    let stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(saved.iter().all(|key| stored.contains(key)), "{stored:?}");
    server.shell("rm small/ballast");
    eventually("it is saved", || map.pending() == 0).await;
    let values = witness.rows("SELECT key, value #>> '{}' FROM map_map");
    assert_eq!(values.len(), map.len());
    for row in values {
        assert_eq!(map.get(row.get::<_, String>(0)), Some(row.get(1)));
    }
}
