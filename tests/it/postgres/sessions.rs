//! Connections that the server ends or refuses.

use super::{
    server::Server,
    writers::{Writers, open},
    *,
};

/// Terminates every other session of the database and returns their number.
fn terminate_all(admin: &Witness, database: &Database) -> i64 {
    admin.number(format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = '{}' AND pid <> pg_backend_pid()",
        database.name()
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_terminated_again_and_again_lose_nothing() {
    let database = Database::fresh();
    let admin = database.admin();
    let map = open(database.connect().await).await;
    let writers = Writers::at(&map);
    let mut terminated = 0;
    for round in 0..60 {
        writers.go_on(3).await;
        tokio::time::sleep(Duration::from_micros(round * 97 % 3_000)).await;
        terminated += terminate_all(&admin, &database);
        if round % 10 == 0 {
            writers.check(&database);
        }
    }
    assert!(terminated >= 30, "{terminated}");
    writers.finish(&database).await;
}

/// Dead connections in the pool cause no failure: a caller that gets one takes another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_dead_connections_recovers_without_a_failure() {
    let database = Database::fresh();
    let admin = database.admin();
    let builder = Postgres::builder(database.url()).max_connections(6);
    let store = builder.connect().await.unwrap();
    for round in 0..4 {
        let dead = if round == 0 {
            0
        } else {
            terminate_all(&admin, &database)
        };
        assert!(round == 0 || dead > 1, "{dead} in the pool");
        let start = Arc::new(tokio::sync::Barrier::new(6));
        let writing = (0..6).map(|n| {
            let (store, start) = (store.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                let map = name(&format!("map {n}"));
                Pen::new()
                    .write(&store, &map, vec![put("k", &round.to_string())])
                    .await
            })
        });
        for written in writing.collect::<Vec<_>>() {
            written.await.unwrap().unwrap();
        }
    }
}

/// A connection kept twice the memory of the largest value it had ever sent. In time, every
/// connection of the pool had sent a large one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_has_sent_a_huge_value_is_not_kept() {
    let database = Database::fresh();
    let admin = database.admin();
    let builder = Postgres::builder(database.url()).max_connections(1);
    let store = builder.connect().await.unwrap();
    let session = || {
        let of = format!(
            "datname = '{}' AND pid <> pg_backend_pid()",
            database.name()
        );
        admin.number(format!(
            "SELECT coalesce(sum(pid), 0) FROM pg_stat_activity WHERE {of}"
        ))
    };
    let (map, mut pen) = (name("map"), Pen::new());
    for size in [1_000, 33 << 20] {
        let value = format!("\"{}\"", "x".repeat(size));
        pen.write(&store, &map, vec![put("k", "1")]).await.unwrap();
        let before = session();
        pen.write(&store, &map, vec![put("k", &value)])
            .await
            .unwrap();
        pen.write(&store, &map, vec![put("k", "2")]).await.unwrap();
        // The old session may take a moment to end.
        let is_another = session() != before;
        assert_eq!(is_another, size > 1_000, "{size}");
    }
}

/// All connections of the server are in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_unavailable_until_there_is_room() {
    let server = Server::with(&["max_connections = 6", "superuser_reserved_connections = 0"]);
    let database = Database::on(&server);
    let map = open(database.connect().await).await;
    map.insert_and_save("before", 1).await.unwrap();
    let admin = database.admin();
    terminate_all(&admin, &database);
    let mut others = vec![admin];
    while let Ok(other) = Witness::try_connect(database.url()) {
        others.push(other);
        // Terminated sessions may need a moment to end.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(others.len(), 6);
    let refused = error(Postgres::connect(database.url()).await);
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    assert!(refused.to_string().contains("max_connections"), "{refused}");
    let failed = error(map.insert_and_save("meanwhile", 2).await);
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
    assert_eq!(map.pending(), 1);
    drop(others);
    eventually("it is saved", || map.pending() == 0).await;
    let stored = super::writers::numbers(&database.witness());
    assert_eq!(stored, map.snapshot());
}

/// Batches that list the same maps in different orders wait for each other without a deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_several_maps_in_any_order_do_not_deadlock() {
    let database = Database::fresh();
    let store = database.connect().await;
    let names = ["a", "b", "c", "d"].map(name);
    for map in &names {
        Pen::new().put(&store, map, "k", "0").await;
    }
    let writing = (0..6).map(|n| {
        let (store, mut names) = (store.clone(), names.clone());
        tokio::spawn(async move {
            let mut pen = Pen::new();
            let mut revisions = Vec::new();
            for round in 0..20 {
                names.rotate_left((n + round) % 4);
                names.swap(0, 1);
                let changes = || vec![put("k", "1"), put(&format!("{n}"), "1")];
                let parts = names[..3]
                    .iter()
                    .map(|map| MapBatch::new(map.clone(), changes()));
                let batch = pen.batch(parts.collect());
                revisions.push(store.commit(&batch).await.unwrap().revision.unwrap());
            }
            assert!(revisions.is_sorted());
        })
    });
    for written in writing.collect::<Vec<_>>() {
        written.await.unwrap();
    }
    for map in &names {
        assert_eq!(all(&store, map).await.len(), 7);
    }
}

/// More callers than connections wait for each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_pool_serves_many_maps() {
    let database = Database::fresh();
    let builder = Postgres::builder(database.url()).max_connections(2);
    let store = builder.connect().await.unwrap();
    let saving = (0..20).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let map = name(&format!("map {n}"));
            for value in 0..10 {
                Pen::new().put(&store, &map, "k", &value.to_string()).await;
            }
            all(&store, &map).await.len()
        })
    });
    for saved in saving.collect::<Vec<_>>() {
        assert_eq!(saved.await.unwrap(), 1);
    }
    let used = database.admin().number(format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'",
        database.name()
    ));
    assert!(used <= 2, "{used} connections");
}

/// Six programs open a new database at the same time. One of them creates the tables, and all
/// succeed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_database_opened_by_many_processes_is_set_up_once() {
    for _ in 0..5 {
        let database = Database::fresh();
        let start = Arc::new(tokio::sync::Barrier::new(6));
        let coming = (0..6).map(|n| {
            let (url, start) = (database.url().to_owned(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                let builder = Postgres::builder(url).schema("of its own");
                let store = builder.max_connections(2).connect().await.unwrap();
                // They also create the same first map and its table.
                Pen::new()
                    .put(&store, &name("map"), &n.to_string(), "1")
                    .await;
            })
        });
        for came in coming.collect::<Vec<_>>() {
            came.await.unwrap();
        }
        let rows = database
            .witness()
            .number("SELECT count(*) FROM \"of its own\".map_map");
        assert_eq!(rows, 6);
    }
}

/// The server shows the application name of each session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_carry_the_name_of_the_program() {
    let database = Database::fresh();
    let builder = Postgres::builder(database.url()).application_name("stock taking");
    let store = builder.connect().await.unwrap();
    store.ping().await.unwrap();
    let named = database.admin().number(format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = '{}' AND application_name = 'stock taking'",
        database.name()
    ));
    assert!(named >= 1);
}
