//! Values that were stored before the store was encrypted.

use super::*;
use crate::support::{as_it_is, open};

#[tokio::test]
async fn a_plain_value_is_an_error_that_names_its_key() {
    let store = Memory::new();
    Pen::new().put(&store, &map_name(), "a", "1").await;
    let map = PersistentMap::<u32>::builder(store.layer(layer()), "map").allow_unreadable();
    let error = map.open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.keys(), ["a".into()]);
    assert!(error.to_string().contains("allow_plain"), "{error}");
}

#[tokio::test]
async fn plain_bytes_are_an_error_too() {
    let store = Memory::new();
    put_raw(&store, "a", Payload::binary(b"\xffPf".to_vec())).await;
    let error = load_error(&store.layer(layer())).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn plain_values_are_read_if_allowed_and_encrypted_when_they_are_written() {
    let store = Memory::new();
    let plain = open::<u32>(store.clone(), "map", as_it_is).await;
    plain.extend([("a", 1), ("b", 2)]);
    plain.close().await.unwrap();

    let allowing = store.clone().layer(layer().allow_plain());
    let map = open::<u32>(allowing.clone(), "map", as_it_is).await;
    assert_eq!((map.get("a"), map.get("b")), (Some(1), Some(2)));
    map.insert_and_save("a", 3).await.unwrap();
    assert_eq!(value_in(&store, "a").await.encoding, Encoding::Bytes);
    assert_eq!(value_in(&store, "b").await, Payload::json("2"));
    map.close().await.unwrap();

    let counts = allowing
        .rewrite_with_current_key(&map_name())
        .await
        .unwrap();
    assert_eq!((counts.rewritten, counts.current), (1, 1));
    let map = opened(store.layer(layer())).await.unwrap();
    assert_eq!((map.get("a"), map.get("b")), (Some(3), Some(2)));
}
