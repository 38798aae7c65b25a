//! URLs and other ways to connect, and the lifetime of connections.

use persistify::{ErrorKind, Tls};

use super::*;

#[tokio::test]
async fn options_out_of_bounds_are_named_in_the_error() {
    let url = "postgres://user:secret@127.0.0.1:1/nowhere";
    let builder = || Postgres::builder(url);
    let cases = [
        ("max_connections", builder().max_connections(0)),
        (
            "statement_timeout",
            builder().statement_timeout(Duration::MAX),
        ),
        (
            "lock_timeout",
            builder().lock_timeout(Duration::from_nanos(1)),
        ),
        ("schema", builder().schema("")),
        ("schema", builder().schema("x".repeat(64))),
        ("columns", builder().columns("a", "a", "b")),
        ("columns", builder().columns("a", "revision", "b")),
        ("table", builder().table("m", "")),
        ("table", builder().table("m", "t").table("n", "public.t")),
        ("table", builder().table("m", "persistify_maps")),
        ("url", Postgres::builder("mysql://user:secret@host")),
        (
            "url",
            Postgres::builder("postgres://user:secret@host/?what=secret"),
        ),
        ("url", Postgres::builder("")),
        (
            "root_certificate",
            builder().root_certificate("/nowhere.pem"),
        ),
    ];
    for (option, builder) in cases {
        assert!(!format!("{builder:?}").contains("secret"));
        let failed = error(builder.connect().await);
        assert_eq!(failed.kind(), ErrorKind::Invalid, "{option}: {failed:?}");
        assert!(
            failed.to_string().contains(&format!("`{option}`")),
            "{failed}"
        );
        assert!(!format!("{failed:?}").contains("secret"), "{failed:?}");
    }
}

#[tokio::test]
async fn an_unknown_option_of_a_url_is_named_in_the_error() {
    let url = "postgres://user:secret@host/database";
    for option in ["schema=secret", "sslmode=secret", "connect_timeout=secret"] {
        let failed = error(Postgres::connect(format!("{url}?{option}")).await);
        let said = failed.to_string();
        assert!(said.contains("after the `?`"), "{said}");
        assert!(said.contains("sslrootcert"), "{said}");
        assert!(!format!("{failed:?}").contains("secret"), "{failed:?}");
    }
    let failed = error(Postgres::connect("postgres://user:p?ss@host:port/database").await);
    assert!(failed.to_string().contains("percent-encoded"), "{failed}");
}

#[tokio::test]
async fn a_failed_connection_says_why_without_the_password() {
    let (url, other) = database();
    let (_, server) = url.split_once('@').unwrap();
    let (host, _) = server.split_once('/').unwrap();
    let cases = [
        (
            "postgres://user:secret@127.0.0.1:1/db".to_owned(),
            ErrorKind::Unavailable,
        ),
        (
            format!("postgres://nobody:secret@{server}"),
            ErrorKind::Unusable,
        ),
        (
            format!("postgres://postgres:secret@{host}/missing"),
            ErrorKind::Unusable,
        ),
        // The rest of a password after its first `@` was mistaken for the host and printed.
        (
            "postgres://user:pass@secret@127.0.0.1:1/db".to_owned(),
            ErrorKind::Invalid,
        ),
        (
            "postgres://user:pass@secret/word@127.0.0.1:1/db".to_owned(),
            ErrorKind::Invalid,
        ),
    ];
    for (url, kind) in cases {
        let failed = error(Postgres::connect(&url).await);
        assert_eq!(failed.kind(), kind, "{failed:?}");
        assert!(!failed.may_have_applied());
        assert!(
            !format!("{failed:?}{failed}").contains("secret"),
            "{failed:?}"
        );
    }
    let latin = format!("latin_{}", std::process::id());
    other.run(&format!(
        "CREATE DATABASE {latin} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
    ));
    let failed =
        error(Postgres::connect(url.rsplit_once('/').unwrap().0.to_owned() + "/" + &latin).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable);
    assert!(failed.to_string().contains("LATIN1"), "{failed}");
    other.run(&format!("DROP DATABASE {latin} WITH (FORCE)"));
}

#[tokio::test]
async fn application_name_and_tls_of_the_builder_reach_the_server() {
    let (url, other) = database();
    let postgres = Postgres::builder(&url)
        .application_name("shop")
        .connect()
        .await
        .unwrap();
    let shown = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shop' AND datname = current_database()";
    assert_eq!(other.text(shown), "1");
    postgres.close().await.unwrap();
    if other.text("SHOW ssl") == "off" {
        let failed = error(Postgres::builder(&url).tls(Tls::Require).connect().await);
        assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
        let url = format!("{url}?sslmode=verify-full");
        assert_eq!(
            error(Postgres::connect(url).await).kind(),
            ErrorKind::Unusable
        );
    }
    Postgres::connect(format!("{url}?sslmode=disable"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_pool_of_the_program_is_used_and_stays_open() {
    let (url, _other) = database();
    let config: tokio_postgres::Config = url.parse().unwrap();
    let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
    let pool = deadpool_postgres::Pool::builder(manager)
        .max_size(2)
        .build()
        .unwrap();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::on_pool(pool.clone()).connect().await.unwrap();
    pen.put(&postgres, &map, "k", "1").await;
    postgres.close().await.unwrap();
    let failed = error(load(&postgres, &map, Wanted::All).await);
    assert_eq!(failed.kind(), ErrorKind::Closed);
    let client = pool.get().await.unwrap();
    let row = client
        .query_one("SELECT value::text FROM map_m", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "1");
    drop(client);
    let failed = error(Postgres::on_pool(pool).max_connections(1).connect().await);
    assert_eq!(failed.kind(), ErrorKind::Invalid);
}

/// Dead connections in the pool are replaced without a failure.
#[tokio::test]
async fn connections_that_were_ended_are_replaced() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::builder(&url)
        .max_connections(3)
        .connect()
        .await
        .unwrap();
    for n in 0..10 {
        // Opens several connections, so that dead ones stay in the pool.
        let loads: Vec<_> = (0..3).map(|_| all(&postgres, &map)).collect();
        futures_util::future::join_all(loads).await;
        other.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = 'persistify' AND datname = current_database()",
        );
        pen.put(&postgres, &map, "k", &n.to_string()).await;
        assert_eq!(
            text(&one(&postgres, &map, "k").await.unwrap()),
            n.to_string()
        );
    }
}

#[tokio::test]
async fn a_pool_without_a_free_connection_is_unavailable() {
    let (url, _other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::builder(&url)
        .max_connections(1)
        .wait_timeout(Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    let many = (0..3_000).map(|n| put(&n.to_string(), "1")).collect();
    pen.write(&postgres, &map, many).await.unwrap();
    let streaming = postgres.load(&map, Wanted::All).await.unwrap();
    let batch = pen.changes(&map, vec![put("k", "1")]);
    let failed = error(postgres.commit(&batch).await);
    assert_eq!(failed.kind(), ErrorKind::Unavailable);
    assert!(!failed.may_have_applied());
    assert!(failed.to_string().contains("max_connections"), "{failed}");
    // A load dropped midway releases its connection.
    drop(streaming);
    postgres.commit(&batch).await.unwrap();
}

/// An `@` in an option was mistaken for the end of the user name. The rest of the URL, with the
/// password in its options, was printed as the name of the database.
#[tokio::test]
async fn a_password_in_the_options_of_a_url_is_not_printed() {
    for url in [
        "postgres://127.0.0.1:1/db?user=a&password=secret@host",
        "postgres://127.0.0.1:1?user=a&password=pass@secret",
        "postgres://127.0.0.1?user=a&password=secret@host&connect_timeout=1",
    ] {
        let failed = error(Postgres::connect(url).await);
        assert_eq!(failed.kind(), ErrorKind::Invalid, "{failed:?}");
        assert!(!format!("{failed:?}").contains("secret"), "{failed:?}");
    }
    let url = "postgres://127.0.0.1:1/db?user=a&password=secret%40host";
    let failed = error(Postgres::connect(url).await);
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
    assert!(!format!("{failed:?}").contains("secret"), "{failed:?}");
}

/// The program's own pool, with one connection that has run a statement.
async fn pool_of_one(url: &str, said: &'static str) -> deadpool_postgres::Pool {
    let config: tokio_postgres::Config = url.parse().unwrap();
    let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
    let pool = deadpool_postgres::Pool::builder(manager).max_size(1);
    let pool = pool.build().unwrap();
    // The statement may fail.
    let _ = pool.get().await.unwrap().batch_execute(said).await;
    pool
}

/// With another `client_encoding` on the program's connections, keys and values were stored
/// wrongly. The other settings did no harm.
#[tokio::test]
async fn sessions_with_other_settings_store_the_same_values() {
    for setting in [
        "SET client_encoding = 'LATIN1'",
        "SET search_path = ''",
        "SET standard_conforming_strings = off; SET backslash_quote = off",
        "SET bytea_output = 'escape'; SET extra_float_digits = -15",
        "SET DateStyle = 'German'; SET TimeZone = 'Asia/Kathmandu'; SET IntervalStyle = 'iso_8601'",
        "SET default_transaction_isolation = 'serializable'; SET default_transaction_deferrable = on",
        "SET session_replication_role = replica; SET row_security = off",
        "SET enable_seqscan = off; SET plan_cache_mode = force_custom_plan; SET jit = on",
        "SET idle_in_transaction_session_timeout = 1; SET lock_timeout = 1",
        "SET xmloption = document; SET quote_all_identifiers = on; SET array_nulls = off",
    ] {
        let (url, other) = database();
        let pool = pool_of_one(&url, setting).await;
        let postgres = Postgres::on_pool(pool).connect().await.unwrap();
        let (map, mut pen) = (name("ä'\\"), Pen::new());
        let entry = || put("é\\'\u{1}€", r#"{"n": [1.25, "é\\\"€", null]}"#);
        for change in [
            entry(),
            entry(),
            entry().expect(Expect::Present, Otherwise::Fail),
        ] {
            pen.write(&postgres, &map, vec![change]).await.unwrap();
        }
        let record = all(&postgres, &map).await.remove(0);
        assert_eq!(&*record.key, "é\\'\u{1}€", "{setting}");
        assert_eq!(record.updated_at, Some(pen.at), "{setting}");
        assert_eq!(text(&record), r#"{"n": [1.25, "é\\\"€", null]}"#);
        assert_eq!(postgres.maps().await.unwrap(), std::slice::from_ref(&map));
        // Another program reads the same.
        let table = other.text("SELECT table_name FROM persistify_maps");
        let stored = other.text(&format!("SELECT key FROM \"{table}\""));
        assert_eq!(stored, "é\\'\u{1}\u{2}€", "{setting}");
    }
}

/// The program left a transaction open on a connection. The next attempt succeeds, so the error
/// is `Unavailable` and needs no operator.
#[tokio::test]
async fn a_connection_with_an_open_transaction_is_unavailable_and_recovers() {
    let (url, _other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    pen.put(&postgres, &map, "k", "1").await;
    for left in [
        "BEGIN; SELECT 1 / 0",
        "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1",
    ] {
        let pool = pool_of_one(&url, "SELECT 1").await;
        let postgres = Postgres::on_pool(pool.clone()).connect().await.unwrap();
        let leave = async || {
            let _ = pool.get().await.unwrap().batch_execute(left).await;
        };
        leave().await;
        let batch = pen.changes(&map, vec![put("k", "2")]);
        let failed = error(postgres.commit(&batch).await);
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{left}: {failed:?}");
        postgres.commit(&batch).await.unwrap();
        leave().await;
        let failed = error(load(&postgres, &map, Wanted::page(None, 9)).await);
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{left}: {failed:?}");
        assert_eq!(text(&all(&postgres, &map).await[0]), "2");
    }
}

/// Fifty maps are opened and written to at once, on a pool of one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_maps_on_one_connection_all_save() {
    let (url, other) = database();
    let postgres = Postgres::on_pool(pool_of_one(&url, "SELECT 1").await);
    let postgres = postgres.connect().await.unwrap();
    let working = (0..50).map(|n| {
        let postgres = postgres.clone();
        tokio::spawn(async move {
            let builder = PersistentMap::builder(postgres, format!("map{n}"));
            let map: PersistentMap<u32> = builder.open().await.unwrap();
            for n in 0..10 {
                map.insert_and_save("k", n).await.unwrap();
            }
            map.reload().await.unwrap();
            map.close().await.unwrap();
        })
    });
    for worked in working.collect::<Vec<_>>() {
        tokio::time::timeout(Duration::from_mins(1), worked)
            .await
            .unwrap()
            .unwrap();
    }
    let rows = other.text("SELECT count(*) FROM persistify_maps WHERE revision > 0");
    assert_eq!(rows, "50");
}

/// The program closes its own pool.
#[tokio::test]
async fn a_pool_that_its_program_closed_is_closed() {
    let (url, _other) = database();
    let pool = pool_of_one(&url, "SELECT 1").await;
    let postgres = Postgres::on_pool(pool.clone()).connect().await.unwrap();
    pool.close();
    let failed = error(load(&postgres, &name("m"), Wanted::All).await);
    assert_eq!(failed.kind(), ErrorKind::Closed, "{failed:?}");
    assert!(!failed.may_have_applied());
}

/// Covers all forms of a server's address.
#[tokio::test]
async fn a_server_is_found_by_socket_address_and_list() {
    let server = Server::shared();
    let database = Database::on(server);
    let (port, db) = (server.port(), database.name());
    let folder = server.folder().display().to_string().replace('/', "%2F");
    let nobody = server::free_port();
    for url in [
        format!("postgres://postgres@{folder}:{port}/{db}"),
        format!("postgres://postgres@/{db}?host={folder}&port={port}"),
        format!(
            "host={} port={port} user=postgres dbname={db}",
            server.folder().display()
        ),
        format!("postgres://postgres@/{db}?hostaddr=127.0.0.1&port={port}"),
        format!("postgres://postgres@127.0.0.1:{nobody},127.0.0.1:{port}/{db}"),
    ] {
        let postgres = Postgres::connect(&url).await.unwrap();
        postgres.ping().await.unwrap();
        let shown = format!("{postgres:?}");
        assert!(!shown.contains(" at \\\""), "{url}: {shown}");
    }
}
