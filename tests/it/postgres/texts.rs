//! Names, keys and values of every sort.

use std::collections::HashMap;

use super::*;

/// Texts that have a special meaning in SQL, shells or JSON, or are unusual Unicode.
fn odd_texts() -> Vec<String> {
    let odd = [
        "\"",
        "\"\"",
        "'",
        "''",
        "\\",
        "\\'",
        "\\\\",
        ";",
        "'; DROP TABLE map_map; --",
        "--",
        "/*",
        "$1",
        "$$",
        "$tag$",
        "%s",
        "{}",
        "{\"a\":1}",
        "NULL",
        "null",
        " ",
        "  a ",
        "é",
        "e\u{301}",
        "🦀",
        "👩‍👩‍👧‍👦",
        "\u{202e}abc",
        "日本語",
        "\u{feff}",
        "\u{10ffff}",
        "a,b",
        "(a)",
        "{a,b}",
        "E'\\x41'",
        "U&\"\\0041\"",
        "pg_catalog",
        "public.map",
        "Map",
        "MAP",
    ];
    odd.map(str::to_owned).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_keys_and_values_come_back_as_they_were() {
    for kind in [ValueType::Jsonb, ValueType::Json, ValueType::Text] {
        let database = Database::fresh();
        let builder = Postgres::builder(database.url()).value_type(kind);
        let store = builder.connect().await.unwrap();
        let map: PersistentMap<String> = PersistentMap::builder(store.clone(), "map")
            .open()
            .await
            .unwrap();
        let mut keys = odd_texts();
        keys.extend(["", "\n", "\t\r\n", "\u{1}", "\u{7f}", "a\u{0}b", "\u{0}"].map(str::to_owned));
        let letters = || rand::random_range('\u{20}'..'\u{3000}');
        let long = || {
            std::iter::repeat_with(letters)
                .take(10_000)
                .collect::<String>()
        };
        keys.extend([long(), long(), "k".repeat(10_000), "k".repeat(9_999)]);
        for key in &keys {
            // The value differs from the key and is just as odd.
            map.insert(key, format!("{}!", key.replace('\0', "")));
        }
        map.flush().await.unwrap();
        let expected = map.snapshot();
        assert_eq!(expected.len(), keys.len());
        map.close().await.unwrap();
        let again = database.connect().await;
        let map: PersistentMap<String> = PersistentMap::builder(again.clone(), "map")
            .open()
            .await
            .unwrap();
        assert_eq!(map.snapshot(), expected);
        // Loads each key alone, then all page by page.
        for (key, value) in &expected {
            let found = text_of(&again, &name("map"), key).await.unwrap();
            assert_eq!(serde_json::from_str::<String>(&found).unwrap(), *value);
        }
        keys.sort();
        let mut paged: Vec<String> = Vec::new();
        loop {
            let after = paged.last().map(|key| Arc::from(key.as_str()));
            let page = load(&again, &name("map"), Wanted::page(after, 7))
                .await
                .unwrap();
            if page.is_empty() {
                break;
            }
            paged.extend(page.iter().map(|record| record.key.to_string()));
        }
        assert_eq!(paged, keys);
        for key in &keys {
            map.remove(key);
        }
        map.flush().await.unwrap();
        assert_eq!(database.witness().number("SELECT count(*) FROM map_map"), 0);
        map.close().await.unwrap();
    }
}

/// No two names share a table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_are_maps_of_their_own() {
    let database = Database::fresh();
    let store = database.connect().await;
    let mut names = odd_texts();
    names.retain(|text| !text.contains('/'));
    names.extend([
        "n".repeat(255),
        "n".repeat(254),
        "N".repeat(255),
        "é".repeat(127),
    ]);
    names.extend(["persistify_maps", "persistify_meta", "pg_class"].map(str::to_owned));
    let mut pen = Pen::new();
    let maps: Vec<_> = names.iter().map(|text| name(text)).collect();
    for (n, map) in maps.iter().enumerate() {
        pen.put(&store, map, "k", &n.to_string()).await;
    }
    for (n, map) in maps.iter().enumerate() {
        assert_eq!(
            text_of(&store, map, "k").await.unwrap(),
            n.to_string(),
            "{map:?}"
        );
    }
    let mut listed = store.maps().await.unwrap();
    listed.sort();
    let mut expected = maps.clone();
    expected.sort();
    assert_eq!(listed, expected);
}

/// The names of schemas and columns may contain quotes and semicolons.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_schemas_and_columns_are_quoted() {
    for odd in [
        "a\"b; DROP SCHEMA public; --",
        "Größe 'x' \\",
        "🦀",
        "select",
    ] {
        let database = Database::fresh();
        let connect = || {
            Postgres::builder(database.url())
                .schema(odd)
                .columns(format!("{odd}k"), format!("{odd}v"), format!("{odd}u"))
                .connect()
        };
        Pen::new()
            .put(&connect().await.unwrap(), &name("map"), "k", "1")
            .await;
        let store = connect().await.unwrap();
        assert_eq!(text_of(&store, &name("map"), "k").await.unwrap(), "1");
        let rows = database.witness().rows_with(
            "SELECT count(*) FROM information_schema.columns
             WHERE table_schema = $1 AND table_name = 'map_map' AND column_name = $2",
            vec![Box::new(odd.to_owned()), Box::new(format!("{odd}v"))],
        );
        assert_eq!(rows[0].get::<_, i64>(0), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_ten_megabytes_come_back() {
    let database = Database::fresh();
    let map: PersistentMap<String> = PersistentMap::builder(database.connect().await, "map")
        .open()
        .await
        .unwrap();
    for n in 0..3 {
        let letters = format!("{n} \"quoted\" \\ 🦀 ");
        map.insert(n.to_string(), letters.repeat((10 << 20) / letters.len()));
    }
    map.flush().await.unwrap();
    let expected = map.snapshot();
    map.close().await.unwrap();
    let rows = database
        .witness()
        .rows("SELECT key, length(value #>> '{}') FROM map_map");
    let lengths: HashMap<String, i32> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (key, value) in &expected {
        assert_eq!(lengths[key], i32::try_from(value.chars().count()).unwrap());
    }
    let map: PersistentMap<String> = PersistentMap::builder(database.connect().await, "map")
        .open()
        .await
        .unwrap();
    assert!(map.snapshot() == expected);
}

/// `jsonb` does not support `\u0000`. The error names the entry and the column type to use, and no
/// other entry waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_jsonb_refuses_is_named_and_the_rest_is_committed() {
    let database = Database::fresh();
    let map: PersistentMap<String> = PersistentMap::builder(database.connect().await, "map")
        .open()
        .await
        .unwrap();
    for n in 0..998 {
        let text = if n == 500 { "zero \0 inside" } else { "plain" };
        map.insert(format!("key {n}"), text.to_owned());
    }
    let failed = error(map.flush().await);
    assert_eq!(failed.kind(), ErrorKind::Refused, "{failed:?}");
    let refused = map.refused();
    assert_eq!(refused.len(), 1);
    assert_eq!(&*refused[0].key, "key 500");
    let message = refused[0].error.to_string();
    assert!(
        message.contains("u0000") && message.contains("ValueType::Json"),
        "{message}"
    );
    assert!(message.contains("key 500"), "{message}");
    let witness = database.witness();
    assert_eq!(witness.number("SELECT count(*) FROM map_map"), 997);
    assert_eq!(
        witness.number("SELECT count(*) FROM map_map WHERE key = 'key 500'"),
        0
    );
    // The other column types accept the value.
    for (kind, map) in [(ValueType::Json, "as json"), (ValueType::Text, "as text")] {
        let builder = Postgres::builder(database.url()).value_type(kind);
        let store = builder.connect().await.unwrap();
        let open = || PersistentMap::<String>::builder(store.clone(), map).open();
        let written = open().await.unwrap();
        written
            .insert_and_save("k", "zero \0 inside".to_owned())
            .await
            .unwrap();
        written.close().await.unwrap();
        assert_eq!(open().await.unwrap().get("k").unwrap(), "zero \0 inside");
    }
}
