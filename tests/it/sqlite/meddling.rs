//! Adopted tables that change or ignore the values written to them.

use persistify::{ErrorKind, Expect, Otherwise, PersistentMap, Provider};

use super::*;

const TABLE: &str = "CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT);";

async fn adopt(place: &Place) -> Result<Sqlite> {
    Sqlite::builder(place.path()).table("m", "t").open().await
}

async fn adopted(sql: &str) -> (Place, Connection, Sqlite) {
    let place = Place::new();
    let other = place.other();
    other.execute_batch(sql).unwrap();
    let sqlite = adopt(&place).await.unwrap();
    (place, other, sqlite)
}

fn rows(other: &Connection) -> String {
    let sql = "SELECT coalesce(group_concat(key || '=' || value, ',' ORDER BY key), '') FROM t";
    other.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// A trigger changed a saved value, and the result was mistaken for a write of the other
/// program: the entry lost its expiry, and its next conditional change conflicted.
#[tokio::test]
async fn a_value_that_a_trigger_changes_counts_as_our_own() {
    let (_place, other, sqlite) = adopted(&format!(
        "{TABLE} CREATE TRIGGER shout AFTER INSERT ON t BEGIN
            UPDATE t SET value = upper(value) WHERE key = new.key; END;
         CREATE TRIGGER again AFTER UPDATE ON t BEGIN
            UPDATE t SET value = upper(value) WHERE key = new.key; END"
    ))
    .await;
    let (map, mut pen) = (name("m"), Pen::new());
    let end = pen.at + Duration::from_mins(1);
    for json in ["\"a\"", "\"b\""] {
        let lasting = Change::put("k", Payload::json(json), Some(end));
        let written = pen.write(&sqlite, &map, vec![lasting]).await.unwrap();
        let found = one(&sqlite, &map, "k").await.unwrap();
        assert_eq!(text(&found), json.to_uppercase());
        assert_eq!(Some(found.revision), written.revision);
        assert_eq!(found.expires_at, Some(end));
        let touch =
            Change::touch("k", Some(end)).expect(Expect::At(found.revision), Otherwise::Fail);
        pen.write(&sqlite, &map, vec![touch]).await.unwrap();
    }
    assert_eq!(rows(&other), "k=\"B\"");
}

/// A change that a trigger or a constraint of the table ignored counted as saved.
#[tokio::test]
async fn a_change_that_the_table_ignores_is_refused() {
    let (_place, other, sqlite) = adopted(
        "CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT UNIQUE ON CONFLICT IGNORE);
         INSERT INTO t VALUES ('nope', '0');
         CREATE TRIGGER i BEFORE INSERT ON t WHEN new.key LIKE 'no%' BEGIN SELECT RAISE(IGNORE); END;
         CREATE TRIGGER u BEFORE UPDATE ON t WHEN new.key LIKE 'no%' BEGIN SELECT RAISE(IGNORE); END;
         CREATE TRIGGER d BEFORE DELETE ON t WHEN old.key LIKE 'no%' BEGIN SELECT RAISE(IGNORE); END",
    )
    .await;
    let (map, mut pen) = (name("m"), Pen::new());
    pen.put(&sqlite, &map, "k", "1").await;
    let changes = [
        put("no", "2"),
        put("nope", "2"),
        put("same", "1"),
        Change::delete("nope"),
    ];
    for change in changes {
        let key = change.key.clone();
        let refused = error(pen.write(&sqlite, &map, vec![put("a", "2"), change]).await);
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
        assert_eq!(refused.keys(), [key]);
    }
    assert_eq!(rows(&other), "k=1,nope=0");
    pen.write(&sqlite, &map, vec![Change::delete("nobody")])
        .await
        .unwrap();
}

/// Beside an index that compares keys byte by byte, the table had one that does not. A change
/// of one key overwrote the row of another.
#[tokio::test]
async fn a_key_that_an_index_takes_for_another_does_not_overwrite_it() {
    for sql in [
        "CREATE TABLE t (key TEXT COLLATE NOCASE PRIMARY KEY, value TEXT);
         CREATE UNIQUE INDEX b ON t (key COLLATE BINARY)",
        "CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT);
         CREATE UNIQUE INDEX b ON t (key COLLATE NOCASE)",
        "CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT);
         CREATE UNIQUE INDEX b ON t (key COLLATE RTRIM)",
    ] {
        let (_place, other, sqlite) = adopted(sql).await;
        let (map, mut pen) = (name("m"), Pen::new());
        pen.put(&sqlite, &map, "k", "1").await;
        let alike = if sql.contains("RTRIM") { "k  " } else { "K" };
        let refused = error(pen.write(&sqlite, &map, vec![put(alike, "2")]).await);
        assert_eq!(refused.kind(), ErrorKind::Refused, "{sql}");
        assert_eq!(refused.keys(), [alike.into()]);
        pen.put(&sqlite, &map, "k", "3").await;
        assert_eq!(rows(&other), "k=3", "{sql}");
    }
}

/// A STRICT table does not convert types. One whose columns accept no keys or values was
/// adopted, and then every change was refused.
#[tokio::test]
async fn strict_tables_are_refused_if_they_take_no_keys_or_values() {
    for (columns, fits) in [
        ("key TEXT PRIMARY KEY, value TEXT, updated_at INT", true),
        ("key ANY PRIMARY KEY, value ANY, updated_at ANY", true),
        ("key TEXT PRIMARY KEY, value BLOB", true),
        ("key BLOB PRIMARY KEY, value TEXT", false),
        ("key TEXT PRIMARY KEY, value TEXT, updated_at REAL", false),
        ("key TEXT PRIMARY KEY, value TEXT, updated_at BLOB", false),
    ] {
        let place = Place::new();
        let sql = format!("CREATE TABLE t ({columns}) STRICT");
        place.other().execute_batch(&sql).unwrap();
        let (map, mut pen) = (name("m"), Pen::new());
        match adopt(&place).await {
            Ok(sqlite) => {
                assert!(fits, "{sql}");
                pen.put(&sqlite, &map, "k", "1").await;
                assert_eq!(pairs(&all(&sqlite, &map).await), [("k".into(), "1".into())]);
            }
            Err(unfit) => {
                assert!(!fits, "{sql}: {unfit}");
                assert_eq!(unfit.kind(), ErrorKind::Invalid, "{sql}");
            }
        }
    }
}

/// One time that was not a number or was out of range made every load of the table fail.
#[tokio::test]
async fn a_row_with_an_invalid_time_loads_without_it() {
    for adopting in [true, false] {
        let place = Place::new();
        let other = place.other();
        let sqlite = if adopting {
            other
                .execute_batch(
                    "CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT, updated_at INTEGER)",
                )
                .unwrap();
            adopt(&place).await.unwrap()
        } else {
            Sqlite::open(place.path()).await.unwrap()
        };
        let (map, mut pen) = (name("m"), Pen::new());
        let table = if adopting { "t" } else { "map_m" };
        for (n, time) in [
            "'soon'",
            "1.5",
            "x'00'",
            "9223372036854775807",
            "-9223372036854775808",
            "NULL",
        ]
        .iter()
        .enumerate()
        {
            pen.put(&sqlite, &map, &n.to_string(), "1").await;
            other
                .execute_batch(&format!(
                    "UPDATE {table} SET updated_at = {time} WHERE key = '{n}'"
                ))
                .unwrap();
        }
        assert_eq!(all(&sqlite, &map).await.len(), 6);
    }
}

/// A foreign key of another program prevented a clear, and the error reported a missing table.
#[tokio::test]
async fn a_clear_that_a_foreign_key_forbids_is_unusable() {
    let (_place, other, sqlite) = adopted(&format!(
        "{TABLE} CREATE TABLE child (of TEXT REFERENCES t (key));"
    ))
    .await;
    let (map, mut pen) = (name("m"), Pen::new());
    pen.put(&sqlite, &map, "k", "1").await;
    other
        .execute_batch("INSERT INTO child VALUES ('k')")
        .unwrap();
    let part = MapBatch::new(map.clone(), vec![put("new", "1")]).clearing(true);
    let failed = error(sqlite.commit(&pen.batch(vec![part])).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable);
    assert!(
        failed.to_string().contains("a constraint or a trigger"),
        "{failed}"
    );
}

async fn increment(map: &PersistentMap<u32>, key: &str) -> Result<()> {
    match map.update_in_store(key, |n| n + 1).await? {
        Some(_) => Ok(()),
        None => map.save_if(key, 1, Expect::Absent).await.map(drop),
    }
}

/// No increment is lost, including the one that inserts the row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_by_both_programs_add_up() {
    let (_place, other, sqlite) = adopted(TABLE).await;
    other.busy_timeout(Duration::from_mins(1)).unwrap();
    let map: PersistentMap<u32> = PersistentMap::builder(sqlite, "m").open().await.unwrap();
    let theirs = std::thread::spawn(move || {
        for n in 0..200 {
            let sql = format!(
                "INSERT INTO t VALUES ('{}', '1') ON CONFLICT (key) DO UPDATE SET value = value + 1",
                n % 5
            );
            other.execute(&sql, []).unwrap();
        }
        other
    });
    let mut ours = 0;
    while !theirs.is_finished() || ours < 200 {
        match increment(&map, &(ours % 5).to_string()).await {
            // The other program was faster in every attempt.
            Err(slower) if slower.kind() == ErrorKind::Conflict => {}
            done => {
                done.unwrap();
                ours += 1;
            }
        }
    }
    let other = theirs.join().unwrap();
    let sum: u32 = other
        .query_row("SELECT sum(CAST(value AS INT)) FROM t", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(sum, 200 + ours);
    map.close().await.unwrap();
}
