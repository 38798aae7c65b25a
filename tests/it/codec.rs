//! Values that are difficult to encode as JSON, or to decode from it.

mod depth;
#[cfg(feature = "json")]
mod files;
mod readable;
mod unreadable_map;
mod verify;
mod ways;

use persistify::{Error, ErrorKind, PersistentMap};
use serde::{Serialize, de::DeserializeOwned};

use crate::support::{open, steady, store, stored};

/// Saves the value and reopens the map. Returns the error if the value was refused.
async fn refusal<V>(value: V) -> Option<Error>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let store = store();
    let map: PersistentMap<V> = open(store.clone(), "map", steady).await;
    let refused = map.insert_and_save("key", value).await.err();
    if let Some(error) = &refused {
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert!(stored(&store).await.is_empty());
        let remedy = "write another one to the key, or remove it";
        assert!(error.to_string().contains(remedy), "{error}");
    }
    let again = open::<V>(store.clone(), "map", steady).await;
    assert_eq!(again.len(), usize::from(refused.is_none()));
    refused
}
