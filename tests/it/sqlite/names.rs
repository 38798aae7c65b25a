//! Names of maps and keys with any characters.

use persistify::Provider;

use super::*;

/// Names that must all be separate maps.
fn awkward_names() -> Vec<MapName> {
    let long = "x".repeat(255);
    let longer = "é".repeat(127);
    let mut names: Vec<_> = [
        "stock",
        "Stock",
        "STOCK",
        "map_stock",
        "sqlite_schema",
        "sqlite_x",
        "persistify_maps",
        "persistify_of_stock",
        "maps",
        "\"",
        "\"\"",
        "a\"; DROP TABLE persistify_maps; --",
        "'); DELETE FROM persistify_meta; --",
        "[x]",
        "`x`",
        "?1",
        "%",
        "%%",
        "%41",
        "A",
        "a b",
        "select",
        "🍐",
        "İ",
        "i̇",
        &long,
        &longer,
    ]
    .map(name)
    .into();
    names.push(name("stock").nested("unreadable").unwrap());
    names.push(name("stock").nested("Unreadable").unwrap());
    names.push(name(&long).nested(&long).unwrap().nested(&longer).unwrap());
    names
}

const AWKWARD_KEYS: [&str; 16] = [
    "",
    " ",
    "a",
    "A",
    "a ",
    "\0",
    "\0\0",
    "a\0",
    "a\0b",
    "a\0c",
    "'; DROP TABLE map_stock; --",
    "\"",
    "é",
    "e\u{301}",
    "🍐",
    "\u{10ffff}",
];

#[tokio::test]
async fn no_map_sees_anothers_keys_whatever_the_names() {
    let place = Place::new();
    let mut pen = Pen::new();
    let sqlite = place.open().await;
    let names = awkward_names();
    for (n, map) in names.iter().enumerate() {
        pen.put(&sqlite, map, "k", &n.to_string()).await;
    }
    sqlite.close().await.unwrap();
    let sqlite = place.open().await;
    for (n, map) in names.iter().enumerate() {
        let expected = [("k".to_owned(), n.to_string())];
        assert_eq!(pairs(&all(&sqlite, map).await), expected, "{map}");
    }
    let mut listed = sqlite.maps().await.unwrap();
    let mut expected = names;
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn keys_of_any_text_are_kept_and_sort_by_their_bytes() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let changes = AWKWARD_KEYS.map(|key| put(key, &format!("{key:?}")));
    pen.write(&sqlite, &map, changes.into()).await.unwrap();
    // Puts each key again, so that the upsert must find the same row.
    pen.write(
        &sqlite,
        &map,
        AWKWARD_KEYS
            .map(|key| put(key, &format!("[{key:?}]")))
            .into(),
    )
    .await
    .unwrap();
    let mut sorted = AWKWARD_KEYS;
    sorted.sort_unstable();
    let expected = sorted.map(|key| (key.to_owned(), format!("[{key:?}]")));
    assert_eq!(pairs(&all(&sqlite, &map).await), expected);

    let mut paged = Vec::new();
    let mut after: Option<Arc<str>> = None;
    loop {
        let page = load(&sqlite, &map, Wanted::page(after, 3)).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        paged.extend(pairs(&page));
    }
    assert_eq!(paged, expected);

    for key in AWKWARD_KEYS {
        let found = one(&sqlite, &map, key).await.unwrap();
        assert_eq!(&*found.key, key);
        pen.write(&sqlite, &map, vec![Change::delete(key)])
            .await
            .unwrap();
        assert_eq!(one(&sqlite, &map, key).await, None);
    }
    assert!(all(&sqlite, &map).await.is_empty());
}

#[tokio::test]
async fn a_map_can_be_read_by_name_in_plain_sql() {
    let place = Place::new();
    let mut pen = Pen::new();
    let sqlite = place.open().await;
    pen.put(&sqlite, &name("stock"), "apple", r#"{"n":3}"#)
        .await;
    pen.put(&sqlite, &name("Old Stock"), "apple", "1").await;
    let other = place.other();
    let sql = "SELECT value ->> 'n' FROM map_stock WHERE key = 'apple'";
    assert_eq!(
        other
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .unwrap(),
        3
    );
    let sql = r#"SELECT value FROM "map_%4fld%20%53tock""#;
    assert_eq!(
        other
            .query_row(sql, [], |row| row.get::<_, String>(0))
            .unwrap(),
        "1"
    );
}

#[tokio::test]
async fn columns_can_have_other_names() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let named = |key: &str| {
        Sqlite::builder(place.path())
            .columns(key, "select", "a \"time\"; --")
            .open()
    };
    let sqlite = named("Ключ").await.unwrap();
    pen.put(&sqlite, &map, "k", "1").await;
    pen.put(&sqlite, &map, "k", "2").await;
    sqlite.close().await.unwrap();
    let sqlite = named("Ключ").await.unwrap();
    assert_eq!(text_of(&sqlite, &map, "k").await.unwrap(), "2");
    let sql = r#"SELECT "select" FROM map_m WHERE "Ключ" = 'k'"#;
    assert_eq!(
        place
            .other()
            .query_row(sql, [], |row| row.get::<_, String>(0))
            .unwrap(),
        "2"
    );

    // With a wrong column name, it fails: SQLite must not read the name as a string.
    let sqlite = named("key").await.unwrap();
    let kind = persistify::ErrorKind::Unusable;
    assert_eq!(error(load(&sqlite, &map, Wanted::All).await).kind(), kind);
    let change = vec![put("k", "3")];
    assert_eq!(error(pen.write(&sqlite, &map, change).await).kind(), kind);
}

#[tokio::test]
async fn bad_options_are_refused_by_name() {
    let place = Place::new();
    let path = place.path();
    let builder = || Sqlite::builder(&path);
    let cases = [
        (builder().columns("", "value", "at"), "columns"),
        (builder().columns("key", "KEY", "at"), "columns"),
        (builder().columns("key", "value", "Revision"), "columns"),
        (builder().columns("key", "val\0ue", "at"), "columns"),
        (builder().busy_timeout(Duration::MAX), "busy_timeout"),
        (builder().table("m", ""), "table"),
        (builder().table("m", "sqlite_schema"), "table"),
        (builder().table("m", "Persistify_maps"), "table"),
        (builder().table("m", "t").table("m", "u"), "table"),
        (builder().table("m", "t").table("n", "T"), "table"),
        (builder().table("", "t"), "name"),
        (Sqlite::builder(":memory:"), "`Memory`"),
        (Sqlite::builder(""), "path"),
        (Sqlite::builder(place.folder.path()), "folder"),
    ];
    for (builder, named) in cases {
        let error = error(builder.open().await);
        assert_eq!(error.kind(), persistify::ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
    assert!(!path.exists());
}

#[tokio::test]
async fn a_path_may_look_like_a_uri_and_its_folders_are_made() {
    let place = Place::new();
    let path = place.folder.path().join("new/folder é/file:a?mode=memory");
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = Sqlite::open(&path).await.unwrap();
    pen.put(&sqlite, &map, "k", "1").await;
    sqlite.close().await.unwrap();
    assert!(path.is_file());
}
