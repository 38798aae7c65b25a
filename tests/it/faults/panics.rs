//! Providers and values that panic: the map's tasks survive.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

use async_trait::async_trait;
use persistify::{
    Batch, Committed, ErrorKind, Expect, Incarnation, Load, MapName, Memory, OnConflict,
    PersistentMap, Provider, Result, Wanted,
    testing::{Fault, Hang, Method},
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::support::{HOUR, SECOND, builder, impatient, open, pairs, steady, store, stored};

/// A provider that panics in the given number of next calls of each method.
#[derive(Debug, Default)]
struct Panicking {
    inner: Memory,
    commits: AtomicU32,
    loads: AtomicU32,
    pings: AtomicU32,
    releases: AtomicU32,
}

fn panic_if(counter: &AtomicU32) {
    let left = counter.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
    assert!(left.is_err(), "the provider is confused");
}

#[async_trait]
impl Provider for Panicking {
    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        panic_if(&self.loads);
        self.inner.load(map, wanted).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        panic_if(&self.commits);
        self.inner.commit(batch).await
    }

    async fn release(&self, map: &MapName) -> Result<()> {
        panic_if(&self.releases);
        self.inner.release(map).await
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        panic_if(&self.pings);
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_is_one_that_failed() {
    let store = Arc::new(Panicking::default());
    let open = || PersistentMap::<u32>::builder(store.clone(), "map").retry(impatient());
    store.loads.store(1, SeqCst);
    let error = open().open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let map = open().open().await.unwrap();

    store.commits.store(2, SeqCst);
    let error = map.insert_and_save("a", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!map.health().borrow().is_healthy());
    map.flush().await.unwrap_err();
    map.flush().await.unwrap();

    store.loads.store(1, SeqCst);
    map.reload().await.unwrap_err();
    map.reload().await.unwrap();
    assert_eq!(map.get("a"), Some(1));

    store.commits.store(1, SeqCst);
    store.pings.store(1, SeqCst);
    map.insert_and_save("b", 1).await.unwrap_err();
    store.releases.store(1, SeqCst);
    map.close().await.unwrap_err();
    map.insert("c", 3);
    map.close().await.unwrap();
    assert_eq!(open().open().await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_load_or_a_release_that_hangs_holds_nothing_up_for_ever() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| {
        steady(map).commit_timeout(SECOND)
    })
    .await;
    let hang = Hang::new();
    store.fail_next_of(Method::Load, 1, Fault::Hang(hang.clone()));
    let error = map.reload().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    map.insert_and_save("a", 1).await.unwrap();
    store.fail_next_of(Method::Release, 1, Fault::Hang(hang));
    map.close().await.unwrap_err();
    map.insert_and_save("b", 2).await.unwrap();
    map.close().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 2)]));
}

static PANICS: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Debug, Serialize)]
struct Moody(u32);

impl<'de> Deserialize<'de> for Moody {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        assert!(!PANICS.load(SeqCst), "not today");
        u32::deserialize(from).map(Self)
    }
}

/// A panic in a value's `Deserialize` ended the task that reloads, and with it all saving. A panic
/// during `open` reached the caller.
#[tokio::test(start_paused = true)]
async fn a_value_that_panics_when_it_is_read_is_one_that_does_not_decode() {
    let store = store();
    let open = || builder::<Moody>(&store).batch(1_000, HOUR);
    let map = open().open().await.unwrap();
    map.insert_and_save("a", Moody(1)).await.unwrap();
    let writer = open().open().await.unwrap();
    writer.insert_and_save("a", Moody(2)).await.unwrap();
    PANICS.store(true, SeqCst);
    let error = map.reload().await.unwrap_err();
    assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Corrupt, 1));
    let error = open().open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let forgiving = open().allow_unreadable().open().await.unwrap();
    assert_eq!(forgiving.unreadable().len(), 1);
    PANICS.store(false, SeqCst);
    map.reload().await.unwrap();
    assert_eq!(map.read("a", |value| value.0), Some(2));
    map.insert_and_save("b", Moody(3)).await.unwrap();
}

/// A number that panics when it is dropped, if it is seven.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Touchy(u32);

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(self.0 != 7 || std::thread::panicking(), "dropped");
    }
}

/// A value was replaced by a reload, a conflict or a conditional save, and panicked when it was
/// dropped. That ended the task that saves.
#[tokio::test(start_paused = true)]
async fn a_value_that_panics_when_it_is_dropped_does_not_end_the_task_that_saves() {
    let store = store();
    let open = || builder::<Touchy>(&store).batch(1_000, HOUR);
    let merging = OnConflict::Merge(|mine: Touchy, theirs| {
        std::mem::forget(mine);
        Touchy(theirs.0 + 1)
    });
    let (map, other) = (
        open().conflicts(merging).open().await.unwrap(),
        open().open().await.unwrap(),
    );
    let seven = async || {
        let old = other.insert_and_save("a", Touchy(7)).await.unwrap();
        std::mem::forget(old);
        map.reload().await.unwrap();
        assert_eq!(map.read("a", |value| value.0), Some(7));
    };
    // The unchanged record is reloaded.
    seven().await;
    map.reload().await.unwrap();
    // A reload replaces the value.
    other.update_and_save("a", |n| n.0 = 1).await.unwrap();
    map.reload().await.unwrap();
    // A conditional save is applied or fails.
    seven().await;
    map.save_if("a", Touchy(1), Expect::Present).await.unwrap();
    let unused = map.save_if("a", Touchy(7), Expect::Absent).await;
    assert_eq!(unused.unwrap_err().kind(), ErrorKind::Conflict);
    // A merge replaces the value.
    seven().await;
    other.update_and_save("a", |n| n.0 = 2).await.unwrap();
    map.update("a", |_| ());
    map.flush().await.unwrap();
    assert_eq!(map.read("a", |value| value.0), Some(3));
    map.insert_and_save("b", Touchy(1)).await.unwrap();
    map.close().await.unwrap();
}
