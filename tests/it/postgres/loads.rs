//! Loads: streams, pages, and what is between them.

use std::sync::Arc;

use futures_util::TryStreamExt;

use super::*;

#[tokio::test]
async fn a_load_is_one_state_while_others_write() {
    let (url, _other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let rows = |value: &str| (0..5_000).map(|n| put(&n.to_string(), value)).collect();
    let first = pen.write(&postgres, &map, rows("1")).await.unwrap();
    let load = postgres.load(&map, Wanted::All).await.unwrap();
    assert_eq!(Some(load.horizon), first.revision);
    let mut pages = load.pages;
    let mut records = pages.try_next().await.unwrap().unwrap();
    let part = MapBatch::new(map.clone(), rows("2")).clearing(true);
    postgres.commit(&pen.batch(vec![part])).await.unwrap();
    while let Some(page) = pages.try_next().await.unwrap() {
        assert!(page.len() <= 1_000);
        records.extend(page);
    }
    assert_eq!(records.len(), 5_000);
    assert!(records.iter().all(|record| text(record) == "1"));
}

#[tokio::test]
async fn about_how_many_rows_there_are_is_known_before() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let rows = (0..2_500).map(|n| put(&n.to_string(), "1")).collect();
    pen.write(&postgres, &map, rows).await.unwrap();
    other.run("ANALYZE map_m");
    let load = postgres.load(&map, Wanted::All).await.unwrap();
    assert_eq!(load.total_hint, Some(2_500));
}

#[tokio::test]
async fn values_of_10_megabytes_and_keys_of_10_000_characters() {
    let (url, _other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let mut state = 7_u64;
    // Text that does not shrink when it is compressed.
    let mut random = |chars: usize| -> String {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from_u32(0x4e00 + u32::try_from(state >> 52).unwrap()).unwrap()
        };
        (0..chars).map(|_| next()).collect()
    };
    let value = format!("\"{}\"", random(3_500_000));
    let key = random(10_000);
    let alike = [key.clone() + "a", key.clone() + "b", key.clone()];
    let changes = alike
        .iter()
        .map(|key| put(key, "1"))
        .chain([put("big", &value)]);
    pen.write(&postgres, &map, changes.collect()).await.unwrap();
    assert!(text(&one(&postgres, &map, "big").await.unwrap()) == value);
    assert_eq!(all(&postgres, &map).await.len(), 4);
    let after = |key: &str| Wanted::page(Some(Arc::from(key)), 1);
    for (before, expected) in [(&*key, &alike[0]), (&alike[0], &alike[1]), ("big", &key)] {
        let page = load(&postgres, &map, after(before)).await.unwrap();
        assert!(page.len() == 1 && *page[0].key == **expected);
    }
    assert!(
        load(&postgres, &map, after(&alike[1]))
            .await
            .unwrap()
            .is_empty()
    );
    pen.write(&postgres, &map, vec![Change::delete(&*key)])
        .await
        .unwrap();
    assert_eq!(one(&postgres, &map, &key).await, None);
}

/// A page costs by what it brings.
#[tokio::test]
async fn a_page_and_some_keys_are_found_by_the_index() {
    let (url, other) = database();
    let (map, mut pen) = (name("m"), Pen::new());
    let postgres = Postgres::connect(&url).await.unwrap();
    let rows = (0..20_000).map(|n| put(&format!("{n:05}"), "1")).collect();
    pen.write(&postgres, &map, rows).await.unwrap();
    other.run("ANALYZE map_m");
    for sql in [
        "SELECT * FROM map_m AS t WHERE t.key > '10000' ORDER BY t.key LIMIT 10",
        "SELECT * FROM map_m AS t WHERE t.key = ANY(ARRAY['10000', '10001'])",
    ] {
        let plan = other.run(&format!("EXPLAIN {sql}"));
        let plan: Vec<_> = plan.iter().map(|row| row[0].clone().unwrap()).collect();
        assert!(plan.join("\n").contains("map_m_pkey"), "{plan:#?}");
    }
    let page = load(&postgres, &map, Wanted::page(Some("10000".into()), 10))
        .await
        .unwrap();
    assert_eq!(page.len(), 10);
    assert_eq!(*page[0].key, *"10001");
}
