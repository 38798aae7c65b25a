//! Encryption: the store never sees a value, and no value can be changed or moved in it.

use persistify::{
    Change, Encoding, Encrypted, Error, ErrorKind, Expect, Keys, MapName, Memory, Otherwise,
    Payload, PersistentMap, Provider, ProviderExt, Record, Result, testing::conformance,
};

use crate::support::{
    Pen, Plain, map_name, put,
    records::{all, one},
};

mod at_rest;
mod attacks;
mod keys;
mod plain;
mod repeats;
mod rewrite;
#[cfg(any(feature = "lz4", feature = "zstd"))]
mod stacked;

/// The layer with one key, of the id `one`.
pub(super) fn layer() -> Encrypted {
    Encrypted::new(one_key())
}

fn one_key() -> Keys {
    Keys::new("one", [1; 32]).unwrap()
}

fn two_keys() -> Keys {
    Keys::new("two", [2; 32])
        .unwrap()
        .and("one", [1; 32])
        .unwrap()
}

async fn value_in(store: &dyn Provider, key: &str) -> Payload {
    let record = one(store, &map_name(), key).await;
    record.unwrap().value.unwrap()
}

/// Puts a payload as it is.
async fn put_raw(store: &dyn Provider, key: &str, payload: Payload) {
    let change = Change::put(key, payload, None);
    let written = Pen::new().changes(&map_name(), vec![change]);
    store.commit(&written).await.unwrap();
}

async fn opened(store: impl Provider) -> Result<PersistentMap<u32>> {
    PersistentMap::builder(store, "map").open().await
}

async fn load_error(store: &dyn Provider) -> Error {
    use persistify::Wanted;
    let loaded = store.load(&map_name(), Wanted::All).await;
    match loaded {
        Ok(load) => load.into_records().await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn encryption_in_memory_conforms() {
    let store = Memory::new();
    conformance(async || Ok(store.clone().layer(layer()))).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn encryption_in_json_files_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || persistify::JsonFile::open(folder.path()).await;
    conformance(async || Ok(open().await?.layer(layer()))).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn encryption_in_sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    let open = async || persistify::Sqlite::open(&path).await;
    conformance(async || Ok(open().await?.layer(layer()))).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn encryption_in_postgres_conforms() {
    let database = crate::postgres::Database::fresh();
    let open = async || persistify::Postgres::connect(database.url()).await;
    conformance(async || Ok(open().await?.layer(layer()))).await;
}

#[tokio::test]
async fn every_value_is_stored_as_other_bytes_and_comes_back() {
    let store = Memory::new();
    let above = store.clone().layer(layer());
    let values = [
        Payload::json("1"),
        Payload::json("").with_schema(1),
        Payload::binary(b"".to_vec()),
        Payload::binary(b"\xffPfE\x01".to_vec()).with_schema(u32::MAX),
        Payload::binary(vec![7; 100_000]),
    ];
    for value in values {
        put_raw(&above, "a", value.clone()).await;
        let stored = value_in(&store, "a").await;
        assert_eq!(stored.encoding, Encoding::Bytes);
        assert_eq!(stored.schema, value.schema);
        assert!(stored.bytes.len() >= value.bytes.len() + 40);
        assert_eq!(value_in(&above, "a").await, value);
        // A stored form is a value like any other.
        put_raw(&above, "b", stored.clone()).await;
        assert_eq!(value_in(&above, "b").await, stored);
    }
}

#[tokio::test]
async fn nonces_never_repeat_and_no_two_stored_forms_are_alike() {
    let store = Memory::new();
    let above = store.clone().layer(layer());
    let mut pen = Pen::new();
    let mut nonces = std::collections::HashSet::new();
    for _ in 0..20 {
        let changes = (0..1_000).map(|n| put(&n.to_string(), "1"));
        let batch = pen.changes(&map_name(), changes.collect());
        above.commit(&batch).await.unwrap();
        for record in all(&store, &map_name()).await {
            let bytes = record.value.unwrap().bytes;
            // The nonce precedes the sealed encoding, schema version and value, and the tag.
            let end = bytes.len() - 16 - 5 - 1;
            assert!(nonces.insert(bytes.slice(end - 24..end)));
        }
    }
    assert_eq!(nonces.len(), 20_000);
}

#[tokio::test]
async fn a_store_that_takes_json_only_is_refused_at_open_and_before_a_commit() {
    let store = Plain(Memory::new()).layer(layer());
    let error = opened(store.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let batch = Pen::new().changes(&map_name(), vec![put("a", "1")]);
    let error = store.commit(&batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!error.may_have_applied());
}

#[tokio::test]
async fn conflicts_and_skipped_changes_carry_the_decrypted_record() {
    let above = Memory::new().layer(layer());
    let mut pen = Pen::new();
    pen.put(&above, &map_name(), "a", "1").await;
    let stored = |record: Option<Record>| record.unwrap().value.unwrap();
    let absent = |otherwise| put("a", "2").expect(Expect::Absent, otherwise);
    let skip = pen.changes(&map_name(), vec![absent(Otherwise::Skip)]);
    let skipped = above.commit(&skip).await.unwrap().skipped;
    assert_eq!(stored(skipped[0].found.clone()), Payload::json("1"));
    let fail = pen.changes(&map_name(), vec![absent(Otherwise::Fail)]);
    let conflict: Error = above.commit(&fail).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    assert_eq!(stored(conflict.found().cloned()), Payload::json("1"));
}

#[test]
fn the_layer_says_that_it_encrypts_and_prints_neither_keys_nor_values() {
    let key = *b"the secret key of thirty-two bts";
    let keys = Keys::new("2026-11", key).unwrap();
    let keys = keys.and("2026-05", [0x5a; 32]).unwrap();
    let above = Memory::new().layer(Encrypted::new(keys.clone()));
    let inner = Memory::new().capabilities();
    assert_eq!(above.capabilities(), inner.with_encrypted());
    for text in [
        format!("{keys:?}"),
        format!("{above:?}"),
        format!("{above:#?}"),
    ] {
        assert!(
            text.contains("2026-11") && text.contains("2026-05"),
            "{text}"
        );
        for secret in ["secret key", "116, 104", "5a5a5a", "0x5a", "90, 90"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn a_key_out_of_its_bounds_is_refused() {
    let key = [1; 32];
    for id in ["", "a\n", "\0", &"x".repeat(65)] {
        let error = Keys::new(id, key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{id:?}");
    }
    assert!(Keys::new("x".repeat(64), key).is_ok());
    assert!(Keys::new("Schlüssel", key).is_ok());
    let zeros = Keys::new("a", [0; 32]).unwrap_err();
    assert_eq!(zeros.kind(), ErrorKind::Invalid);
    let twice = one_key().and("one", [3; 32]).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Invalid);
    assert!(twice.to_string().contains("\"one\""), "{twice}");
    assert_eq!(two_keys().current(), "two");
}
