//! The errors of a close or a flush that could not save everything.

use std::collections::BTreeMap;

use persistify::{Memory, Provider};

use super::*;
use crate::support::{as_it_is, open};

/// The error said that the changes stay pending and are retried, which is impossible with a
/// closed provider.
#[tokio::test(start_paused = true)]
async fn a_close_after_that_of_the_provider_says_that_nothing_can_be_saved_any_more() {
    let provider = Arc::new(Memory::new());
    let map: PersistentMap<u32> = open(provider.clone(), "map", as_it_is).await;
    map.insert("a", 1);
    provider.close().await.unwrap();
    let error = map.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}");
    assert_eq!(names(&error), ["a"]);
    let said = error.to_string();
    assert!(said.contains("can no longer be saved"), "{said}");
    assert!(!said.contains("pending"), "{said}");
    // The message advises an export, which works.
    let mut exported = Vec::new();
    map.export(&mut exported).await.unwrap();
    assert!(String::from_utf8(exported).unwrap().contains("\"a\""));
}

/// The error blamed the store, which never received the value.
#[tokio::test(start_paused = true)]
async fn a_flush_does_not_blame_the_store_for_what_the_codec_refused() {
    let map: PersistentMap<BTreeMap<(u8, u8), u8>> = open(store(), "map", as_it_is).await;
    map.insert("a", [((1, 2), 3)].into());
    let error = map.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert_eq!(names(&error), ["a"]);
    let said = error.to_string();
    assert!(!said.contains("the store"), "{said}");
    assert!(said.contains("key must be a string"), "{said}");
}
