//! Values that are changed, moved or damaged in the store.

use persistify::Namespaced;
use proptest::prelude::*;

use super::*;
use crate::support::{as_it_is, open};

fn aside() -> MapName {
    MapName::parse("map/unreadable").unwrap()
}

/// The value as the layer hands it up is the stored one: unreadable.
async fn is_unreadable(above: &dyn Provider, below: &dyn Provider, map: &MapName, key: &str) {
    let read = one(above, map, key).await;
    let stored = one(below, map, key).await;
    assert_eq!(read.unwrap().value, stored.unwrap().value);
}

#[tokio::test]
async fn values_that_are_swapped_are_unreadable() {
    let store = Memory::new();
    let above = store.clone().layer(layer());
    let mut pen = Pen::new();
    pen.put(&above, &map_name(), "a", "1").await;
    pen.put(&above, &map_name(), "b", "2").await;
    let (a, b) = (value_in(&store, "a").await, value_in(&store, "b").await);
    put_raw(&store, "a", b).await;
    put_raw(&store, "b", a.clone()).await;
    is_unreadable(&above, &store, &map_name(), "a").await;
    is_unreadable(&above, &store, &map_name(), "b").await;
    let error = opened(above.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    put_raw(&store, "a", a).await;
    assert_eq!(value_in(&above, "a").await, Payload::json("1"));
}

/// The lengths keep map and key apart: `ab` + `c` is not `a` + `bc`.
#[tokio::test]
async fn a_value_is_unreadable_in_another_map() {
    let store = Memory::new();
    let above = store.clone().layer(layer());
    let name = |name: &str| MapName::new(name).unwrap();
    Pen::new().put(&above, &name("ab"), "c", "1").await;
    let stored = one(&store, &name("ab"), "c").await.unwrap().value.unwrap();
    for (map, key) in [("a", "bc"), ("abc", ""), ("other", "c")] {
        let change = Change::put(key, stored.clone(), None);
        let batch = Pen::new().changes(&name(map), vec![change]);
        store.commit(&batch).await.unwrap();
        is_unreadable(&above, &store, &name(map), key).await;
    }
}

#[tokio::test]
async fn values_cannot_be_moved_between_tenants_above_the_layer() {
    let store = Memory::new();
    let encrypted = store.clone().layer(layer());
    let acme = Namespaced::new(encrypted.clone(), "acme").unwrap();
    Pen::new().put(&acme, &map_name(), "a", "1").await;
    let stored = MapName::parse("acme/map").unwrap();
    let value = one(&store, &stored, "a").await.unwrap().value.unwrap();
    let other = Namespaced::new(store, "other").unwrap();
    put_raw(&other, "a", value.clone()).await;
    let other = Namespaced::new(encrypted, "other").unwrap();
    assert_eq!(value_in(&other, "a").await, value);
}

/// The schema version in the store is for people. A changed one would run other migrations.
#[tokio::test]
async fn a_changed_schema_version_has_no_effect() {
    let store = Memory::new();
    let above = store.clone().layer(layer());
    let value = Payload::json("1").with_schema(3);
    put_raw(&above, "a", value.clone()).await;
    let stored = value_in(&store, "a").await.with_schema(9);
    put_raw(&store, "a", stored).await;
    assert_eq!(value_in(&above, "a").await, value);
}

#[tokio::test]
async fn a_tampered_value_is_listed_and_copied_aside_before_it_is_overwritten() {
    let store = Memory::new();
    let above = store.clone().layer(layer());
    let mut pen = Pen::new();
    pen.put(&above, &map_name(), "a", "1").await;
    pen.put(&above, &map_name(), "b", "2").await;
    let mut bytes = value_in(&store, "a").await.bytes.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let tampered = Payload::binary(bytes);
    put_raw(&store, "a", tampered.clone()).await;

    let map = open::<u32>(above.clone(), "map", |map| map.allow_unreadable()).await;
    assert_eq!((map.get("a"), map.get("b")), (None, Some(2)));
    let listed = map.unreadable();
    assert_eq!(listed[0].error.kind(), ErrorKind::Corrupt);
    assert_eq!(listed[0].record.value, Some(tampered.clone()));
    map.insert_and_save("a", 3).await.unwrap();
    map.close().await.unwrap();
    // The copy is a value of the map `map/unreadable`, encrypted like any other.
    let copies = all(&above, &aside()).await;
    assert_eq!(copies[0].value, Some(tampered.clone()));
    assert_ne!(all(&store, &aside()).await[0].value, Some(tampered));
    assert_eq!(opened(above).await.unwrap().get("a"), Some(3));
}

/// Damage never looks like a missing key, which would fail the whole load.
#[tokio::test]
async fn every_flipped_bit_and_every_cut_make_one_value_unreadable() {
    let store = Memory::new();
    let above = store.clone().layer(layer());
    put_raw(&above, "a", Payload::json("\"value\"")).await;
    let stored = value_in(&store, "a").await;
    // A damaged magic makes it a plain value.
    for at in 4..stored.bytes.len() {
        for bit in 0..8 {
            let mut bytes = stored.bytes.to_vec();
            bytes[at] ^= 1 << bit;
            put_raw(&store, "a", Payload::binary(bytes)).await;
            is_unreadable(&above, &store, &map_name(), "a").await;
        }
        put_raw(&store, "a", Payload::binary(stored.bytes.slice(..at))).await;
        is_unreadable(&above, &store, &map_name(), "a").await;
    }
}

#[tokio::test]
async fn a_damaged_magic_is_an_error_that_names_the_key() {
    let store = Memory::new();
    let above = store.clone().layer(layer());
    put_raw(&above, "a", Payload::json("1")).await;
    let mut bytes = value_in(&store, "a").await.bytes.to_vec();
    bytes[0] = b'{';
    put_raw(&store, "a", Payload::binary(bytes)).await;
    let error = load_error(&above).await;
    assert_eq!(error.keys(), ["a".into()]);
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_an_error_or_unreadable(
        magic in any::<bool>(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        block_on(async {
            let store = Memory::new();
            let mut bytes = if magic { b"\xffPfE\x01\x01".to_vec() } else { Vec::new() };
            bytes.extend(noise);
            put_raw(&store, "a", Payload::binary(bytes)).await;
            let above = store.clone().layer(layer());
            if magic {
                is_unreadable(&above, &store, &map_name(), "a").await;
            } else {
                assert_eq!(load_error(&above).await.kind(), ErrorKind::Invalid);
            }
        });
    }

    #[test]
    fn every_value_comes_back_under_every_key(
        bytes in prop::collection::vec(any::<u8>(), 0..2_000),
        is_json in any::<bool>(),
        schema in any::<u32>(),
        key in ".*",
    ) {
        block_on(async {
            let value = if is_json { Payload::json(bytes) } else { Payload::binary(bytes) };
            let value = value.with_schema(schema);
            let above = Memory::new().layer(layer());
            put_raw(&above, &key, value.clone()).await;
            assert_eq!(value_in(&above, &key).await, value);
        });
    }
}

#[tokio::test]
async fn a_copy_goes_through_the_layer() {
    let (from, to) = (Memory::new(), Memory::new());
    let above = from.layer(layer());
    let map = open::<u32>(above.clone(), "map", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.close().await.unwrap();
    let other = Encrypted::new(Keys::new("other", [9; 32]).unwrap());
    let target = to.clone().layer(other);
    persistify::copy(&above, &target, ["map"], |_, _| {})
        .await
        .unwrap();
    assert_eq!(value_in(&target, "a").await, Payload::json("1"));
    let error = load_error(&to.layer(layer())).await;
    assert!(error.to_string().contains("\"other\""), "{error}");
}
