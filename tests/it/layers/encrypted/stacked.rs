//! Compression above encryption.

use persistify::Compressed;

use super::*;
use crate::support::{as_it_is, open};

#[cfg(feature = "lz4")]
fn compressed() -> Compressed {
    Compressed::lz4()
}

#[cfg(not(feature = "lz4"))]
fn compressed() -> Compressed {
    Compressed::zstd(3)
}

fn stack(store: impl Provider) -> impl Provider {
    store.layer(layer()).layer(compressed().min_size(0))
}

#[tokio::test]
async fn the_stack_in_memory_conforms() {
    let store = Memory::new();
    conformance(async || Ok(stack(store.clone()))).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn the_stack_in_json_files_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || persistify::JsonFile::open(folder.path()).await;
    conformance(async || Ok(stack(open().await?))).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn the_stack_in_sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    let open = async || persistify::Sqlite::open(&path).await;
    conformance(async || Ok(stack(open().await?))).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn the_stack_in_postgres_conforms() {
    let database = crate::postgres::Database::fresh();
    let open = async || persistify::Postgres::connect(database.url()).await;
    conformance(async || Ok(stack(open().await?))).await;
}

#[tokio::test]
async fn the_wrong_order_is_an_error_that_says_the_right_one() {
    let wrong = Memory::new().layer(compressed()).layer(layer());
    let batch = Pen::new().changes(&map_name(), vec![put("a", "1")]);
    let committed = wrong.commit(&batch).await.unwrap_err();
    let rewritten = wrong.rewrite_with_current_key(&map_name()).await;
    let error = opened(wrong).await.unwrap_err();
    for error in [error, committed, rewritten.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        assert!(
            text.contains("layer(Encrypted::new(keys)).layer(Compressed"),
            "{text}"
        );
    }
    // Other layers between the two hide nothing.
    let between = Memory::new().layer(compressed()).namespace("acme").unwrap();
    let error = opened(between.layer(layer())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn values_are_compressed_before_they_are_encrypted() {
    let store = Memory::new();
    let map = open::<String>(stack(store.clone()), "map", as_it_is).await;
    let long = "compressible ".repeat(1_000);
    map.insert_and_save("a", long.clone()).await.unwrap();
    let stored = value_in(&store, "a").await;
    assert!(stored.bytes.len() < 500, "{}", stored.bytes.len());
    map.close().await.unwrap();
    let map = open::<String>(stack(store), "map", as_it_is).await;
    assert_eq!(map.get("a"), Some(long));
}

/// What the encrypting layer hands up as damaged, the compressing one must not take for its own.
#[tokio::test]
async fn a_tampered_value_is_unreadable_through_both() {
    let store = Memory::new();
    let above = stack(store.clone());
    put_raw(&above, "a", Payload::json("\"x\"")).await;
    let mut bytes = value_in(&store, "a").await.bytes.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let tampered = Payload::binary(bytes);
    put_raw(&store, "a", tampered.clone()).await;
    assert_eq!(value_in(&above, "a").await, tampered);
}
