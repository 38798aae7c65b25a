//! Tables of other programs that store values as blobs.

use persistify::ErrorKind;

use super::*;

async fn adopt(place: &Place) -> Result<Sqlite> {
    Sqlite::builder(place.path()).table("m", "t").open().await
}

/// The key, type and text of each row.
fn rows(other: &Connection) -> Vec<(String, String, String)> {
    let sql = "SELECT key, typeof(value), CAST(value AS TEXT) FROM t ORDER BY key";
    let mut statement = other.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().map(|row| row.unwrap()).collect()
}

/// Saving a row whose value was a blob stored text: a program that expected a blob found none,
/// or failed.
#[tokio::test]
async fn a_value_keeps_the_type_that_its_program_stored() {
    let cases = [
        ("value BLOB", "", "blob"),
        ("value BLOB NOT NULL, updated_at INTEGER", "", "blob"),
        ("value BLOB", "STRICT", "blob"),
        ("value TEXT", "", "text"),
        ("value", "", "text"),
    ];
    for (columns, strict, new) in cases {
        let place = Place::new();
        let other = place.other();
        let create = format!("CREATE TABLE t (key TEXT PRIMARY KEY, {columns}) {strict}");
        other.execute_batch(&create).unwrap();
        let mut expected = vec![("new", new)];
        for kept in ["blob", "text"] {
            let sql = format!("INSERT INTO t (key, value) VALUES ('{kept}', CAST('1' AS {kept}))");
            // A STRICT blob column refuses text.
            if other.execute(&sql, []).is_ok() {
                expected.push((kept, kept));
            }
        }
        let sqlite = adopt(&place).await.unwrap();
        let (map, mut pen) = (name("m"), Pen::new());
        assert_eq!(all(&sqlite, &map).await.len(), expected.len() - 1);
        for round in ["2", "3"] {
            for key in ["blob", "text", "new"] {
                if expected.iter().any(|(known, _)| *known == key) {
                    pen.put(&sqlite, &map, key, round).await;
                }
            }
            expected.sort_unstable();
            let expected = expected
                .iter()
                .map(|(key, kind)| (key.to_string(), kind.to_string(), round.to_owned()));
            assert_eq!(rows(&other), expected.collect::<Vec<_>>(), "{create}");
            // The write is not mistaken for one of the other program: the revisions stay.
            let found = all(&sqlite, &map).await;
            assert!(found.iter().all(|record| text(record) == round));
            assert_eq!(all(&sqlite, &map).await, found);
        }
        sqlite.close().await.unwrap();
    }
}

/// Keys are text, and would not be found among blobs.
#[tokio::test]
async fn a_key_of_bytes_is_refused() {
    let place = Place::new();
    let create = "CREATE TABLE t (key BLOB PRIMARY KEY, value TEXT)";
    place.other().execute_batch(create).unwrap();
    let error = error(adopt(&place).await);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("\"key\""), "{error}");
}
