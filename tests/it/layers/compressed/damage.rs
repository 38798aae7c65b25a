//! Stored values that are damaged: no panic, never another value, and nothing is destroyed.

use persistify::Memory;
use proptest::prelude::*;

use super::*;

async fn compressed(layer: &Compressed) -> (Memory, Payload) {
    let store = Memory::new();
    let above = store.clone().layer(layer.clone());
    Pen::new().put(&above, &map_name(), "a", &long_text()).await;
    let stored = value_in(&store, "a").await;
    (store, stored)
}

async fn read_as(layer: &Compressed, stored: &Payload) -> Payload {
    let store = Memory::new();
    let change = Change::put("a", stored.clone(), None);
    Pen::new()
        .write(&store, &map_name(), vec![change])
        .await
        .unwrap();
    value_in(&store.layer(layer.clone()), "a").await
}

/// Some bits have no meaning, so the right value may be read, but never another one.
async fn check_read_as(layer: &Compressed, damaged: &Payload) {
    let read = read_as(layer, damaged).await;
    assert!(read == *damaged || read == Payload::json(long_text()));
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

/// Flips each bit of the value, and cuts it at each place.
#[test]
fn a_damaged_value_is_never_loaded_as_another_value() {
    block_on(async {
        for layer in each() {
            let (_, stored) = compressed(&layer).await;
            for at in 0..stored.bytes.len() {
                for bit in [1, 0x80] {
                    let mut bytes = stored.bytes.to_vec();
                    bytes[at] ^= bit;
                    let damaged = Payload::binary(bytes);
                    check_read_as(&layer, &damaged).await;
                }
                let cut = Payload::binary(stored.bytes.slice(..at));
                check_read_as(&layer, &cut).await;
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_after_an_intact_header_are_loaded(
        from in 24..60_usize,
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        block_on(async {
            for layer in each() {
                let (_, stored) = compressed(&layer).await;
                let mut bytes = stored.bytes.slice(..from.min(stored.bytes.len())).to_vec();
                bytes.extend(&noise);
                check_read_as(&layer, &Payload::binary(bytes)).await;
            }
        });
    }

    #[test]
    fn every_value_comes_back(
        bytes in prop::collection::vec(0_u8..4, 0..3_000),
        begins_with_magic in any::<bool>(),
        schema in any::<u32>(),
        min_size in 0..2_000_usize,
    ) {
        block_on(async {
            for layer in each() {
                let mut bytes = bytes.clone();
                if begins_with_magic {
                    bytes.splice(0..0, *b"\xffPfC\x01");
                }
                let value = Payload::binary(bytes).with_schema(schema);
                let store = Memory::new().layer(layer.min_size(min_size));
                let change = Change::put("a", value.clone(), None);
                Pen::new().write(&store, &map_name(), vec![change]).await.unwrap();
                assert_eq!(value_in(&store, "a").await, value);
            }
        });
    }
}

#[tokio::test]
async fn a_damaged_value_is_unreadable_and_copied_aside_before_it_is_overwritten() {
    let layer = some();
    let (store, stored) = compressed(&layer).await;
    let mut bytes = stored.bytes.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let damaged = Payload::binary(bytes);
    let change = Change::put("a", damaged.clone(), None);
    Pen::new()
        .write(&store, &map_name(), vec![change, put("b", "\"good\"")])
        .await
        .unwrap();

    let above = store.clone().layer(layer);
    let refused = opened(above.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert_eq!(refused.keys(), ["a".into()]);

    let map = open::<String>(above.clone(), "map", |map| map.allow_unreadable()).await;
    assert_eq!(map.snapshot().len(), 1);
    assert_eq!(map.unreadable()[0].record.value, Some(damaged.clone()));
    map.insert_and_save("a", "new".to_owned()).await.unwrap();
    let aside = MapName::parse("map/unreadable").unwrap();
    let copies = all(&above, &aside).await;
    assert_eq!(copies[0].value, Some(damaged));
}
