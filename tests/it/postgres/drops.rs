//! The tables in a database after a map is dropped.

use super::*;

fn is_there(other: &Witness, table: &str) -> bool {
    let found = other.cell(&format!("SELECT to_regclass('{table}')::text"));
    found.is_some()
}

#[tokio::test]
async fn the_table_of_a_dropped_map_is_gone_and_comes_back_with_the_next_commit() {
    let (url, other) = database();
    let postgres = Postgres::connect(&url).await.unwrap();
    let (map, mut pen) = (name("m"), Pen::new());
    // The second commit takes a single round trip, and so would a third.
    for value in ["1", "2"] {
        let changes = vec![put("a", value)];
        pen.write(&postgres, &map, changes).await.unwrap();
    }
    let elsewhere = Postgres::connect(&url).await.unwrap();
    elsewhere.drop_map(&map).await.unwrap();
    assert!(!is_there(&other, "map_m"));
    assert!(all(&postgres, &map).await.is_empty());
    pen.write(&postgres, &map, vec![put("b", "3")])
        .await
        .unwrap();
    assert_eq!(
        pairs(&all(&postgres, &map).await),
        [("b".to_owned(), "3".to_owned())]
    );
}

/// The drop must wait for a commit that has locked the map.
#[tokio::test]
async fn a_drop_waits_for_the_commit_that_is_under_way() {
    let (url, other) = database();
    let postgres = Postgres::connect(&url).await.unwrap();
    let (map, mut pen) = (name("m"), Pen::new());
    pen.write(&postgres, &map, vec![put("a", "1")])
        .await
        .unwrap();
    other.run("BEGIN");
    other.run("SELECT 1 FROM persistify_maps WHERE name = 'm' FOR NO KEY UPDATE");
    let dropping = tokio::spawn({
        let (postgres, map) = (postgres.clone(), map.clone());
        async move { postgres.drop_map(&map).await }
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
        AND datname = current_database()";
    eventually("the drop waits", || {
        other.cell(waiting).as_deref() == Some("1")
    })
    .await;
    assert!(is_there(&other, "map_m"));
    other.run("COMMIT");
    dropping.await.unwrap().unwrap();
    assert!(!is_there(&other, "map_m"));
}

/// The rows belong to the program that created the table. A drop must not delete them.
#[tokio::test]
async fn an_adopted_table_is_detached_and_keeps_its_rows() {
    let (url, other) = database();
    other.run("CREATE TABLE t (key text COLLATE \"C\" PRIMARY KEY, value jsonb)");
    let adopt = async || Postgres::builder(&url).table("m", "t").connect().await;
    let (postgres, map, mut pen) = (adopt().await.unwrap(), name("m"), Pen::new());
    pen.write(&postgres, &map, vec![put("a", "1")])
        .await
        .unwrap();
    postgres.drop_map(&map).await.unwrap();
    let companions =
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'persistify_of_%' AND relkind = 'r'";
    assert_eq!(other.cell(companions).as_deref(), Some("0"));
    assert!(postgres.maps().await.unwrap().is_empty());

    // Until the table is adopted again, the map has no table.
    let failed = pen.write(&postgres, &map, vec![put("b", "2")]).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unusable);
    assert!(!is_there(&other, "map_m"));
    let postgres = adopt().await.unwrap();
    assert_eq!(
        pairs(&all(&postgres, &map).await),
        [("a".to_owned(), "1".to_owned())]
    );
}
