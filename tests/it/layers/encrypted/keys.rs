//! Missing, wrong and rotated keys.

use persistify::{OnConflict, testing::Faulty};

use super::*;
use crate::support::{as_it_is, open, settle, steady};

/// If the values counted as unreadable instead, the map would open empty.
#[tokio::test]
async fn a_missing_key_fails_the_load_as_a_whole_and_is_named() {
    let store = Memory::new();
    let above = store.clone().layer(layer());
    Pen::new().put(&above, &map_name(), "a", "1").await;
    let other = Keys::new("two", [2; 32]).unwrap();
    let above = store.clone().layer(Encrypted::new(other));
    Pen::new().put(&above, &map_name(), "b", "2").await;
    for allow in [false, true] {
        let builder = PersistentMap::<u32>::builder(above.clone(), "map");
        let builder = if allow {
            builder.allow_unreadable()
        } else {
            builder
        };
        let error = builder.open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable, "{error}");
        assert_eq!(
            (error.map(), error.keys()),
            (Some("map"), &["a".into()][..])
        );
        let text = error.to_string();
        assert!(
            text.contains("\"one\"") && text.contains("\"two\""),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_wrong_key_fails_the_load_as_a_whole_and_is_named() {
    let store = Memory::new();
    let above = store.clone().layer(layer());
    Pen::new().put(&above, &map_name(), "a", "1").await;
    let wrong = Keys::new("one", [3; 32]).unwrap();
    let above = store.layer(Encrypted::new(wrong));
    let map = PersistentMap::<u32>::builder(above, "map").allow_unreadable();
    let error = map.open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable, "{error}");
    assert!(error.to_string().contains("\"one\""), "{error}");
}

#[tokio::test]
async fn a_key_is_rotated_while_the_map_is_open() {
    let store = Memory::new();
    let above = store.clone().layer(layer());
    let map = open::<u32>(above.clone(), "map", as_it_is).await;
    map.insert_and_save("old", 1).await.unwrap();
    above.set_keys(two_keys());
    map.insert_and_save("new", 2).await.unwrap();
    map.reload().await.unwrap();
    assert_eq!((map.get("old"), map.get("new")), (Some(1), Some(2)));
    map.close().await.unwrap();

    let only_new = store.layer(Encrypted::new(Keys::new("two", [2; 32]).unwrap()));
    assert_eq!(value_in(&only_new, "new").await, Payload::json("2"));
    let error = load_error(&only_new).await;
    assert_eq!(error.keys(), ["old".into()]);
}

/// Another process has the new key already. Its record is in the answer to a commit that was
/// applied: the commit must not be reported as not applied.
#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_needs_a_missing_key_goes_on_once_the_key_is_there() {
    let below = Faulty::new(Memory::new());
    let above = below.clone().layer(layer());
    let merging = |map: persistify::PersistentMapBuilder<u32>| {
        steady(map).conflicts(OnConflict::Merge(|mine: u32, theirs| mine + theirs))
    };
    let map = open(above.clone(), "map", merging).await;
    map.insert_and_save("a", 1).await.unwrap();
    let theirs = below.inner().clone().layer(Encrypted::new(two_keys()));
    Pen::new().put(&theirs, &map_name(), "a", "10").await;

    map.insert("a", 2);
    let error = map.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert!(error.may_have_applied(), "{error}");
    assert!(error.to_string().contains("\"two\""), "{error}");

    above.set_keys(two_keys());
    map.flush().await.unwrap();
    settle().await;
    let sent = below.batches();
    assert_eq!(sent[1].id, sent[2].id);
    assert_eq!(sent[1], sent[2]);
    assert_eq!(map.get("a"), Some(12));
    assert_eq!(value_in(&theirs, "a").await, Payload::json("12"));
}

#[tokio::test]
async fn a_conflict_with_a_record_of_a_missing_key_names_the_key() {
    let store = Memory::new();
    let theirs = store.clone().layer(Encrypted::new(two_keys()));
    Pen::new().put(&theirs, &map_name(), "a", "1").await;
    let above = store.layer(layer());
    let change = put("a", "2").expect(Expect::Absent, Otherwise::Fail);
    let batch = Pen::new().changes(&map_name(), vec![change]);
    let error = above.commit(&batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert!(!error.may_have_applied());
    assert!(error.to_string().contains("\"two\""), "{error}");
}
