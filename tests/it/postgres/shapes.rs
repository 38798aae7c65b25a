//! Requirements of adopted tables.

use super::*;

fn foreign(sql: &str) -> (Database, Witness) {
    let database = Database::fresh();
    let other = database.witness();
    other.execute(sql);
    (database, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_many_shapes_are_accepted() {
    for columns in [
        "key text PRIMARY KEY, value text, updated_at timestamptz",
        "key text PRIMARY KEY, value json",
        "key text UNIQUE, value jsonb, updated_at timestamp",
        "id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key varchar NOT NULL, value jsonb, UNIQUE (key)",
        "key text COLLATE \"C\" PRIMARY KEY, value varchar, updated_at timestamptz NOT NULL",
        "key text PRIMARY KEY, value jsonb NOT NULL, other text NOT NULL DEFAULT 'x', twice text GENERATED ALWAYS AS (key || key) STORED",
    ] {
        let (database, other) = foreign(&format!("CREATE TABLE t ({columns})"));
        let connect = || {
            Postgres::builder(database.url())
                .table("map", "t")
                .connect()
        };
        let store = connect()
            .await
            .unwrap_or_else(|failed| panic!("{columns}: {failed:?}"));
        let (map, mut pen) = (name("map"), Pen::new());
        let changes = vec![
            put("b", "{\"n\": 1}"),
            put("a", "2"),
            put("é", "3"),
            put("B", "4"),
        ];
        pen.write(&store, &map, changes).await.unwrap();
        pen.write(&store, &map, vec![Change::delete("a"), put("b", "5")])
            .await
            .unwrap();
        assert_eq!(other.number("SELECT count(*) FROM t"), 3);
        let page = load(&connect().await.unwrap(), &map, Wanted::page(None, 2))
            .await
            .unwrap();
        assert_eq!(
            pairs(&page),
            [("B".into(), "4".into()), ("b".into(), "5".into())],
            "{columns}"
        );
        let clear = pen.batch(vec![MapBatch::new(map.clone(), vec![]).clearing(true)]);
        store.commit(&clear).await.unwrap();
        assert_eq!(other.number("SELECT count(*) FROM t"), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_cannot_hold_a_map_are_refused_with_the_reason() {
    let cases = [
        ("CREATE TABLE u (key text)", ErrorKind::Unusable, "missing"),
        ("CREATE TABLE t (value jsonb)", ErrorKind::Unusable, "\"key\""),
        ("CREATE TABLE t (key text PRIMARY KEY)", ErrorKind::Unusable, "\"value\""),
        ("CREATE TABLE t (key int PRIMARY KEY, value jsonb)", ErrorKind::Invalid, "\"key\""),
        ("CREATE TABLE t (key text PRIMARY KEY, value int)", ErrorKind::Invalid, "\"value\""),
        ("CREATE TABLE t (key text PRIMARY KEY, value bytea)", ErrorKind::Invalid, "\"value\""),
        ("CREATE TABLE t (key text, value jsonb)", ErrorKind::Invalid, "unique"),
        ("CREATE TABLE t (key text, x int, value jsonb, UNIQUE (key, x))", ErrorKind::Invalid, "unique"),
        ("CREATE TABLE t (key text, value jsonb); CREATE UNIQUE INDEX ON t (key) WHERE key > 'a'", ErrorKind::Invalid, "unique"),
        ("CREATE TABLE t (key text, value jsonb); CREATE UNIQUE INDEX ON t (lower(key))", ErrorKind::Invalid, "unique"),
        ("CREATE TABLE t (key text UNIQUE DEFERRABLE, value jsonb)", ErrorKind::Invalid, "unique"),
        ("CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
          CREATE TABLE t (key text COLLATE ci PRIMARY KEY, value jsonb)", ErrorKind::Invalid, "byte"),
        ("CREATE TABLE t (key text PRIMARY KEY, value jsonb, other text NOT NULL)", ErrorKind::Invalid, "\"other\""),
        ("CREATE TABLE t (key text PRIMARY KEY, value text GENERATED ALWAYS AS ('1') STORED)", ErrorKind::Invalid, "\"value\""),
        ("CREATE TABLE t (key text PRIMARY KEY, value jsonb, updated_at boolean)", ErrorKind::Invalid, "\"updated_at\""),
        ("CREATE VIEW t AS SELECT 'a'::text AS key, '1'::jsonb AS value", ErrorKind::Invalid, "\"t\""),
    ];
    for (sql, kind, reason) in cases {
        let (database, _other) = foreign(sql);
        let builder = Postgres::builder(database.url()).table("map", "t");
        let failed = match builder.connect().await {
            Err(failed) => failed,
            Ok(store) => error(
                Pen::new()
                    .write(&store, &name("map"), vec![put("k", "1")])
                    .await,
            ),
        };
        assert_eq!(failed.kind(), kind, "{sql}: {failed:?}");
        assert!(failed.to_string().contains(reason), "{sql}: {failed}");
        assert!(failed.to_string().contains('t'), "{failed}");
    }
}
