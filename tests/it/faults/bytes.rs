//! Maps over records of bytes: a map reads JSON, so they are unreadable to it.

use persistify::{Change, ErrorKind, Memory, Payload, copy};

use crate::support::{
    builder, map_name, open, records, records_in, steady, store, stored, write_as_another,
};

/// Bytes that would be a number if they were taken for JSON.
fn bytes() -> Payload {
    Payload::binary(b"1".to_vec())
}

fn put_bytes(key: &str) -> Vec<Change> {
    vec![Change::put(key, bytes(), None)]
}

#[tokio::test(start_paused = true)]
async fn a_record_of_bytes_is_unreadable_to_a_map_and_named() {
    let store = store();
    write_as_another(store.inner(), put_bytes("a")).await;
    let error = builder::<u32>(&store).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.keys(), ["a".into()]);
}

#[tokio::test(start_paused = true)]
async fn a_record_of_bytes_is_kept_and_moved_aside_when_it_is_overwritten() {
    let store = store();
    write_as_another(store.inner(), put_bytes("a")).await;
    let map = open::<u32>(store.clone(), "map", |map| steady(map).allow_unreadable()).await;
    let listed = map.unreadable();
    assert_eq!((map.get("a"), listed.len()), (None, 1));
    assert_eq!(listed[0].record.value, Some(bytes()));
    map.insert_and_save("b", 2).await.unwrap();
    assert_eq!(records(store.inner()).await["a"].value, Some(bytes()));

    map.insert_and_save("a", 3).await.unwrap();
    assert_eq!(stored(&store).await["a"], "3");
    let aside = map_name().nested("unreadable").unwrap();
    let aside = records_in(&store, &aside).await;
    let kept: Vec<_> = aside.into_iter().map(|record| record.value).collect();
    assert_eq!(kept, [Some(bytes())]);
}

#[tokio::test]
async fn a_copy_of_a_record_of_bytes_has_the_same_bytes() {
    let (from, to) = (Memory::new(), Memory::new());
    write_as_another(&from, put_bytes("a")).await;
    copy(&from, &to, ["map"], |_, _| {}).await.unwrap();
    assert_eq!(records(&to).await["a"].value, Some(bytes()));
}
