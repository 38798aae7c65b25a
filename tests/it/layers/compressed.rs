//! Compression: large values are smaller in the store, and all values come back unchanged.

use persistify::{
    Change, Compressed, Encoding, Error, ErrorKind, Expect, MapName, Memory, Otherwise, Payload,
    PersistentMap, Provider, ProviderExt, Record, Result,
    testing::{Fault, Faulty, conformance},
};

use crate::support::{
    Pen, Plain, as_it_is, map_name, open, put,
    records::{all, one},
    steady,
};

mod damage;

/// The layer with each algorithm that is compiled in.
fn each() -> Vec<Compressed> {
    vec![
        #[cfg(feature = "lz4")]
        Compressed::lz4(),
        #[cfg(feature = "zstd")]
        Compressed::zstd(3),
    ]
}

fn some() -> Compressed {
    each().remove(0)
}

fn long_text() -> String {
    format!("\"{}\"", "compressible ".repeat(1_000))
}

async fn value_in(store: &dyn Provider, key: &str) -> Payload {
    let record = one(store, &map_name(), key).await;
    record.unwrap().value.unwrap()
}

#[tokio::test]
async fn compression_in_memory_conforms() {
    for layer in each() {
        let store = Memory::new();
        conformance(async || Ok(store.clone().layer(layer.clone().min_size(0)))).await;
    }
}

#[cfg(feature = "json")]
#[tokio::test]
async fn compression_in_json_files_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || persistify::JsonFile::open(folder.path()).await;
    conformance(async || Ok(open().await?.layer(some().min_size(0)))).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn compression_in_sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    let open = async || persistify::Sqlite::open(&path).await;
    conformance(async || Ok(open().await?.layer(some().min_size(0)))).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn compression_in_postgres_conforms() {
    let database = crate::postgres::Database::fresh();
    let open = async || persistify::Postgres::connect(database.url()).await;
    conformance(async || Ok(open().await?.layer(some().min_size(0)))).await;
}

#[tokio::test]
async fn values_from_the_size_on_are_smaller_in_the_store_and_others_are_unchanged() {
    for layer in each() {
        let store = Memory::new();
        let above = store.clone().layer(layer);
        let (short, just) = (format!("\"{}\"", "x".repeat(509)), "x".repeat(510));
        let just = format!("\"{just}\"");
        let mut pen = Pen::new();
        for (key, text) in [("long", &long_text()), ("short", &short), ("just", &just)] {
            pen.put(&above, &map_name(), key, text).await;
        }
        let long = value_in(&store, "long").await;
        assert_eq!(long.encoding, Encoding::Bytes);
        assert!(long.bytes.len() < 500, "{}", long.bytes.len());
        assert_eq!(value_in(&store, "short").await, Payload::json(short));
        assert_eq!(value_in(&store, "just").await.encoding, Encoding::Bytes);
        assert_eq!(value_in(&above, "just").await, Payload::json(just));
        assert_eq!(value_in(&above, "long").await, Payload::json(long_text()));
    }
}

#[tokio::test]
async fn values_that_hardly_compress_are_stored_as_they_are() {
    for layer in each() {
        let store = Memory::new();
        let above = store.clone().layer(layer);
        let noise: Vec<u8> = (0..10_000).map(|_| rand::random::<u8>()).collect();
        let noise = Payload::binary(noise);
        let change = Change::put("noise", noise.clone(), None);
        Pen::new()
            .write(&above, &map_name(), vec![change])
            .await
            .unwrap();
        assert_eq!(value_in(&store, "noise").await, noise);
        assert_eq!(value_in(&above, "noise").await, noise);
    }
}

#[tokio::test]
async fn every_algorithm_reads_the_values_of_all_and_uncompressed_ones() {
    let store = Memory::new();
    let mut pen = Pen::new();
    pen.put(&store, &map_name(), "plain", &long_text()).await;
    for (n, layer) in each().into_iter().enumerate() {
        let above = store.clone().layer(layer);
        pen.put(&above, &map_name(), &n.to_string(), &long_text())
            .await;
    }
    for layer in each() {
        let above = store.clone().layer(layer);
        for record in all(&above, &map_name()).await {
            assert_eq!(record.value, Some(Payload::json(long_text())));
        }
    }
}

/// Without an escape, the layer would take such values for its own.
#[tokio::test]
async fn bytes_that_look_compressed_come_back_unchanged() {
    let store = Memory::new();
    let above = store.clone().layer(some());
    let mut pen = Pen::new();
    pen.put(&above, &map_name(), "long", &long_text()).await;
    let compressed = value_in(&store, "long").await.with_schema(7);
    let short = Payload::binary(compressed.bytes.slice(..4)).with_schema(3);
    for looks in [compressed, short] {
        let change = Change::put("looks", looks.clone(), None);
        pen.write(&above, &map_name(), vec![change]).await.unwrap();
        assert_eq!(value_in(&above, "looks").await, looks);
        assert_ne!(value_in(&store, "looks").await, looks);
    }
}

#[cfg(feature = "zstd")]
#[tokio::test]
async fn every_level_of_zstd_is_read_by_all() {
    let store = Memory::new();
    let mut pen = Pen::new();
    for level in [1, 3, 12, 22] {
        let above = store.clone().layer(Compressed::zstd(level));
        pen.put(&above, &map_name(), &level.to_string(), &long_text())
            .await;
    }
    for record in all(&store.layer(Compressed::zstd(3)), &map_name()).await {
        assert_eq!(record.value, Some(Payload::json(long_text())));
    }
}

#[cfg(feature = "zstd")]
#[tokio::test]
async fn a_bad_level_is_an_error_of_open() {
    for level in [i32::MIN, -1, 0, 23] {
        let store = Memory::new().layer(Compressed::zstd(level));
        let error = opened(store).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("1 and 22"), "{error}");
    }
}

async fn opened(store: impl Provider) -> Result<PersistentMap<String>> {
    PersistentMap::builder(store, "map").open().await
}

#[tokio::test]
async fn a_store_that_takes_json_only_is_refused_at_open_and_before_a_commit() {
    let store = Plain(Memory::new()).layer(some());
    let error = opened(store.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let batch = Pen::new().changes(&map_name(), vec![put("a", "1")]);
    let error = store.commit(&batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!error.may_have_applied());
}

#[tokio::test]
async fn conflicts_and_skipped_changes_carry_the_uncompressed_record() {
    let above = Memory::new().layer(some());
    let mut pen = Pen::new();
    pen.put(&above, &map_name(), "a", &long_text()).await;
    let stored = |record: Option<Record>| record.unwrap().value.unwrap();
    let absent = |otherwise| put("a", "2").expect(Expect::Absent, otherwise);
    let skip = pen.changes(&map_name(), vec![absent(Otherwise::Skip)]);
    let skipped = above.commit(&skip).await.unwrap().skipped;
    assert_eq!(stored(skipped[0].found.clone()), Payload::json(long_text()));
    let fail = pen.changes(&map_name(), vec![absent(Otherwise::Fail)]);
    let conflict: Error = above.commit(&fail).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    assert_eq!(
        stored(conflict.found().cloned()),
        Payload::json(long_text())
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_unknown_outcome_is_repeated_byte_for_byte() {
    for layer in each() {
        let below = Faulty::new(Memory::new());
        let map = open::<String>(below.clone().layer(layer), "map", steady).await;
        below.fail_next(1, Fault::After(ErrorKind::Unavailable));
        below.fail_nth(2, Fault::Lost(ErrorKind::Unavailable));
        map.insert_and_save("a", long_text()).await.unwrap();
        let sent = below.batches();
        assert_eq!(sent.len(), 3);
        assert!(sent.iter().all(|batch| *batch == sent[0]));
    }
}

/// The work is done on a blocking thread, and the commit is dropped while it is there.
#[tokio::test]
async fn a_commit_that_is_dropped_while_it_compresses_writes_nothing() {
    let below = Faulty::new(Memory::new());
    let above = below.clone().layer(some());
    let huge = format!("\"{}\"", "x".repeat(1 << 20));
    let batch = Pen::new().changes(&map_name(), vec![put("a", &huge)]);
    let mut commit = Box::pin(above.commit(&batch));
    assert!(futures_util::poll!(&mut commit).is_pending());
    drop(commit);
    assert!(below.batches().is_empty());
    above.commit(&batch).await.unwrap();
    assert_eq!(value_in(&above, "a").await, Payload::json(huge));
}

/// Without a runtime, all work is done on the caller's thread.
#[test]
fn the_layer_works_without_a_runtime() {
    futures_util::future::FutureExt::now_or_never(async {
        let above = Memory::new().layer(some());
        Pen::new().put(&above, &map_name(), "a", &long_text()).await;
        assert_eq!(value_in(&above, "a").await, Payload::json(long_text()));
    })
    .unwrap();
}

#[tokio::test]
async fn a_map_saves_and_loads_values_of_all_sizes() {
    for layer in each() {
        let store = Memory::new();
        let texts = |n: usize| "ab".repeat(n * n);
        let map = open::<String>(store.clone().layer(layer.clone()), "map", as_it_is).await;
        map.extend((0..100).map(|n| (n.to_string(), texts(n))));
        map.close().await.unwrap();
        let map = open::<String>(store.layer(layer), "map", as_it_is).await;
        assert!((0..100).all(|n| map.get(n.to_string()) == Some(texts(n))));
    }
}

#[test]
fn the_layer_says_that_it_compresses() {
    let inner = Memory::new().capabilities();
    let above = Memory::new().layer(some()).capabilities();
    assert!(!inner.compressed);
    assert_eq!(above, inner.with_compressed());
}
