//! Loads: their records, pages and lifetimes.

use futures_util::TryStreamExt;
use persistify::{ErrorKind, PAGE_RECORDS, Provider};

use super::*;

#[tokio::test]
async fn a_map_that_was_never_written_to_is_empty_and_has_no_table() {
    let place = Place::new();
    let map = name("m");
    let sqlite = place.open().await;
    let load = sqlite.load(&map, Wanted::All).await.unwrap();
    assert_eq!(load.horizon, Revision::ZERO);
    assert!(load.into_records().await.unwrap().is_empty());
    assert_eq!(one(&sqlite, &map, "k").await, None);
    assert!(sqlite.maps().await.unwrap().is_empty());
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'map%'";
    let made: i64 = place.other().query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(made, 0);
}

#[tokio::test]
async fn partial_loads_return_the_wanted_records() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let first = pen
        .write(
            &sqlite,
            &map,
            ["a", "b", "c", "d"].map(|k| put(k, "1")).into(),
        )
        .await
        .unwrap()
        .revision
        .unwrap();
    let second = pen.put(&sqlite, &map, "b", "2").await;
    let third = pen.put(&sqlite, &map, "e", "3").await;

    let keys: Arc<[Arc<str>]> = ["e", "a", "nobody", "a"].map(Arc::from).into();
    let mut records = load(&sqlite, &map, Wanted::Keys(keys)).await.unwrap();
    records.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(
        pairs(&records),
        [("a".into(), "1".into()), ("e".into(), "3".into())]
    );

    let of = async |wanted| {
        let records = load(&sqlite, &map, wanted).await.unwrap();
        records
            .iter()
            .map(|r| r.key.to_string())
            .collect::<String>()
    };
    assert_eq!(of(Wanted::page(None, 2)).await, "ab");
    assert_eq!(of(Wanted::page(Some("b".into()), 2)).await, "cd");
    assert_eq!(of(Wanted::page(Some("bb".into()), usize::MAX)).await, "cde");
    assert_eq!(of(Wanted::page(None, 0)).await, "");
    assert_eq!(of(Wanted::changed(first)).await, "be");
    assert_eq!(of(Wanted::changed(second)).await, "e");
    assert_eq!(of(Wanted::changed(third)).await, "");
    assert_eq!(of(Wanted::changed(Revision::new(u64::MAX))).await, "");
}

/// A load is one state of the map while another connection writes: everything up to its
/// horizon, and nothing after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_map_streams_in_pages_while_another_connection_writes() {
    const ROWS: usize = 100_000;
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let rows = (0..ROWS).map(|n| put(&format!("{n:06}"), "0")).collect();
    let horizon = pen
        .write(&sqlite, &map, rows)
        .await
        .unwrap()
        .revision
        .unwrap();

    let load = sqlite.load(&map, Wanted::All).await.unwrap();
    assert_eq!(load.horizon, horizon);
    assert_eq!(load.total_hint, Some(ROWS as u64));
    let mut pages = load.pages;
    let mut seen = pages.try_next().await.unwrap().unwrap().len();

    let second = Sqlite::open(place.path()).await.unwrap();
    let mut other = Pen::new();
    let changes = vec![
        put("099999", "1"),
        put("new", "1"),
        Change::delete("099998"),
    ];
    other.write(&second, &map, changes).await.unwrap();

    while let Some(page) = pages.try_next().await.unwrap() {
        assert!(page.len() <= PAGE_RECORDS);
        assert!(page.iter().all(|r| r.revision == horizon && text(r) == "0"));
        seen += page.len();
    }
    assert_eq!(seen, ROWS);

    let mut fresh = sorted(&sqlite, &map, Wanted::changed(horizon)).await;
    let deleted = fresh.remove(0);
    assert_eq!((&*deleted.key, deleted.value), ("099998", None));
    assert_eq!(
        pairs(&fresh),
        [("099999".into(), "1".into()), ("new".into(), "1".into())]
    );
}

#[tokio::test]
async fn large_values_come_in_smaller_pages() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let large = format!("\"{}\"", "x".repeat(600 << 10));
    let rows = (0..6).map(|n| put(&n.to_string(), &large)).collect();
    pen.write(&sqlite, &map, rows).await.unwrap();
    let load = sqlite.load(&map, Wanted::All).await.unwrap();
    let pages: Vec<_> = load.pages.try_collect().await.unwrap();
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
}

/// Dropping a load ends its thread, which closes the file.
#[tokio::test]
async fn a_dropped_load_lets_go_of_the_file() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let rows = (0..50_000).map(|n| put(&n.to_string(), "0")).collect();
    pen.write(&sqlite, &map, rows).await.unwrap();
    let mut load = sqlite.load(&map, Wanted::All).await.unwrap();
    load.pages.try_next().await.unwrap();
    sqlite.close().await.unwrap();
    assert!(!place.is_free());
    drop(load);
    place.wait_until_free();
}

/// A load can be read after the provider is closed, even on another runtime.
#[test]
fn a_load_outlives_the_provider_and_the_runtime_ends_with_one_unread() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sqlite = runtime.block_on(async {
        let sqlite = place.open().await;
        let rows = (0..20_000).map(|n| put(&n.to_string(), "0")).collect();
        pen.write(&sqlite, &map, rows).await.unwrap();
        sqlite
    });
    let load = runtime.block_on(sqlite.load(&map, Wanted::All)).unwrap();
    runtime.block_on(sqlite.close()).unwrap();
    // This would wait forever if the load ran on a thread of the runtime.
    drop(runtime);
    let records = futures_util::future::FutureExt::boxed(load.into_records());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    assert_eq!(runtime.block_on(records).unwrap().len(), 20_000);
}

#[tokio::test]
async fn odd_cells_of_another_program_load_or_are_reported_as_corrupt() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "k", "1").await;
    let other = place.other();
    other
        .execute_batch("UPDATE map_m SET value = x'ff00' WHERE key = 'k'")
        .unwrap();
    let stored = one(&sqlite, &map, "k").await.unwrap();
    assert_eq!(&stored.value.unwrap().bytes[..], [0xff, 0x00]);

    other.execute_batch("UPDATE map_m SET key = x'01'").unwrap();
    let failed = error(load(&sqlite, &map, Wanted::All).await);
    assert_eq!(failed.kind(), ErrorKind::Corrupt);
    assert_eq!(failed.map(), Some("m"));
    other
        .execute_batch("UPDATE map_m SET key = 'k', revision = 'x'")
        .unwrap();
    let failed = error(load(&sqlite, &map, Wanted::All).await);
    assert_eq!(failed.kind(), ErrorKind::Corrupt);
}
