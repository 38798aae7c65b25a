//! The tables in a file after a map is dropped.

use persistify::{ErrorKind, Provider};

use super::{
    adopted::{adopt, foreign},
    *,
};

fn tables(other: &Connection) -> Vec<String> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let mut statement = other.prepare(sql).unwrap();
    let names = statement.query_map([], |row| row.get(0)).unwrap();
    names.map(|name| name.unwrap()).collect()
}

#[tokio::test]
async fn the_table_of_a_dropped_map_is_gone_and_comes_back_with_the_next_commit() {
    let place = Place::new();
    let (sqlite, map, mut pen) = (place.open().await, name("m"), Pen::new());
    pen.write(&sqlite, &map, vec![put("a", "1")]).await.unwrap();
    sqlite.drop_map(&map).await.unwrap();
    assert!(!tables(&place.other()).contains(&"map_m".to_owned()));
    pen.write(&sqlite, &map, vec![put("b", "2")]).await.unwrap();
    assert_eq!(
        pairs(&all(&sqlite, &map).await),
        [("b".to_owned(), "2".to_owned())]
    );
}

/// The rows belong to the program that created the table. A drop must not delete them.
#[tokio::test]
async fn an_adopted_table_is_detached_and_keeps_its_rows() {
    let (place, other) = foreign("CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT)");
    let (sqlite, map, mut pen) = (adopt(&place).await.unwrap(), name("m"), Pen::new());
    pen.write(&sqlite, &map, vec![put("a", "1")]).await.unwrap();
    sqlite.drop_map(&map).await.unwrap();
    let of_persistify = |name: &String| name.starts_with("persistify_of_");
    assert!(!tables(&other).iter().any(of_persistify));
    assert!(sqlite.maps().await.unwrap().is_empty());

    // Until the table is adopted again, the map has no table.
    let failed = pen.write(&sqlite, &map, vec![put("b", "2")]).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unusable);
    let failed = sqlite.load(&map, Wanted::All).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unusable);
    assert!(!tables(&other).contains(&"map_m".to_owned()));
    sqlite.close().await.unwrap();
    let sqlite = adopt(&place).await.unwrap();
    assert_eq!(
        pairs(&all(&sqlite, &map).await),
        [("a".to_owned(), "1".to_owned())]
    );
}
