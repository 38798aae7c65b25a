//! Which values are verified before they are saved, and by which task.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use persistify::{ErrorKind, Expect, PersistentMap, Transaction, Verify};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::support::{HOUR, Store, builder, open, steady, store, stored};

/// A number that does not decode if it is seven.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Picky(usize);

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match usize::deserialize(from)? {
            7 => Err(serde::de::Error::custom("no seven")),
            number => Ok(Self(number)),
        }
    }
}

async fn picky(store: &Store, verify: Verify) -> PersistentMap<Picky> {
    let map = builder(store).batch(10_000, HOUR).verify(verify);
    map.open().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_unverified_value_may_keep_the_map_from_opening() {
    let store = store();
    let map = picky(&store, Verify::Never).await;
    map.insert_and_save("a", Picky(7)).await.unwrap();
    map.save_if("b", Picky(7), Expect::Absent).await.unwrap();
    map.batch().insert("c", Picky(7)).commit().await.unwrap();
    map.close().await.unwrap();
    let error = builder::<Picky>(&store).open().await.unwrap_err();
    assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Corrupt, 3));
    assert!(error.to_string().contains("allow_unreadable"), "{error}");
}

async fn refused<V>(value: V) -> bool
where
    V: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let map: PersistentMap<V> = open(store(), "map", |map| steady(map).verify(Verify::Never)).await;
    let saved = map.insert_and_save("a", value).await;
    saved.is_err_and(|error| error.kind() == ErrorKind::Refused)
}

#[tokio::test(start_paused = true)]
async fn a_value_that_json_cannot_hold_is_refused_without_verification() {
    let nested = |levels| (0..levels).fold(json!(1), |value, _| json!([value]));
    assert!(!refused(nested(127)).await);
    assert!(refused(nested(128)).await);
    assert!(refused(f64::NAN).await);
    assert!(refused(f32::INFINITY).await);
}

#[tokio::test(start_paused = true)]
async fn samples_are_the_first_thousand_values_and_then_each_hundredth() {
    let store = store();
    let map = picky(&store, Verify::Sampled).await;
    let save = async |numbers: std::ops::Range<usize>| {
        for n in numbers {
            let picked = if n == 999 { 7 } else { 1 };
            map.insert(n.to_string(), Picky(picked));
        }
        map.flush().await
    };
    let error = save(0..1_000).await.unwrap_err();
    assert_eq!(error.keys(), [std::sync::Arc::from("999")]);
    map.remove("999");
    map.insert("a", Picky(7));
    map.flush().await.unwrap_err();
    map.insert("b", Picky(7));
    map.remove("a");
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await["b"], "7");
}

static READ: AtomicUsize = AtomicUsize::new(0);
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

/// Counts how often it is encoded and decoded.
#[derive(Clone, Debug)]
struct Counted(u32);

impl Serialize for Counted {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        WRITTEN.fetch_add(1, SeqCst);
        to.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        READ.fetch_add(1, SeqCst);
        u32::deserialize(from).map(Self)
    }
}

/// Values of batches and transactions were encoded in the call that adds them, whose cost then grew
/// with the value.
#[tokio::test(start_paused = true)]
async fn values_are_written_and_read_back_by_the_background_task_alone() {
    let counts = || (WRITTEN.load(SeqCst), READ.load(SeqCst));
    let store = store();
    let map: PersistentMap<Counted> =
        open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    map.insert("a", Counted(1));
    let mut tx = Transaction::new(&store);
    tx.insert(&map, "b", Counted(1))
        .insert(&map, "b", Counted(2));
    let mut batch = map.batch();
    batch.insert("c", Counted(1));
    assert_eq!(counts(), (0, 0));
    let mut commit = Box::pin(tx.commit());
    assert!(futures_util::poll!(&mut commit).is_pending());
    assert_eq!(counts(), (0, 0));
    commit.await.unwrap();
    assert_eq!(counts(), (1, 1));
    let mut commit = Box::pin(batch.commit());
    assert!(futures_util::poll!(&mut commit).is_pending());
    assert_eq!(counts(), (1, 1));
    commit.await.unwrap();
    let mut save = Box::pin(map.save_if("d", Counted(1), Expect::Absent));
    assert!(futures_util::poll!(&mut save).is_pending());
    assert_eq!(counts(), (2, 2));
    save.await.unwrap();
    map.flush().await.unwrap();
    assert_eq!(counts(), (4, 4));
}

/// The value that verification decodes is dropped at once. A panic of its `Drop` is not an encoding
/// error.
#[tokio::test(start_paused = true)]
async fn a_copy_that_panics_when_it_is_dropped_is_no_reason_to_refuse() {
    #[derive(Debug, Deserialize, Serialize)]
    struct Loud(u8);
    impl Drop for Loud {
        fn drop(&mut self) {
            assert!(self.0 != 7 || std::thread::panicking(), "dropped");
        }
    }
    let store = store();
    let map: PersistentMap<Loud> = open(store.clone(), "map", steady).await;
    map.insert_and_save("a", Loud(7)).await.unwrap();
    map.update_and_save("a", |loud| loud.0 = 1).await.unwrap();
    map.close().await.unwrap();
}
