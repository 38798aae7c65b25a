//! Opening a map while its store is down.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream};
use persistify::{
    Batch, Committed, Error, ErrorKind, Load, MapName, Memory, PersistentMap, Provider, Result,
    Wanted, async_trait,
    testing::{ManualClock, Method},
};
use tokio::time::{Instant, sleep};

use crate::support::{HOUR, SECOND, as_it_is, builder, open, open_numbers, start, store};

/// A program that was started a moment before its database failed to start.
#[tokio::test(start_paused = true)]
async fn an_open_waits_for_a_store_that_is_away_for_a_moment() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.close().await.unwrap();
    store.down(ErrorKind::Unavailable);
    let begun = Instant::now();
    let opening = tokio::spawn(builder::<u32>(&store).open_timeout(10 * SECOND).open());
    sleep(5 * SECOND).await;
    assert!(!opening.is_finished());
    store.up();
    let map = opening.await.unwrap().unwrap();
    assert_eq!(map.get("a"), Some(1));
    assert!(begun.elapsed() <= 7 * SECOND, "{:?}", begun.elapsed());
    assert!(store.calls(Method::Load) >= 5);
}

#[tokio::test(start_paused = true)]
async fn an_open_on_a_dead_store_fails_at_once_or_after_its_timeout() {
    let store = store();
    store.down(ErrorKind::Unavailable);
    let error = builder::<u32>(&store).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(store.calls(Method::Load), 1);
    assert!(!error.to_string().contains("open_timeout"), "{error}");

    let begun = Instant::now();
    let opening = builder::<u32>(&store).open_timeout(20 * SECOND).open();
    let error = opening.await.unwrap_err();
    let late = begun.elapsed().checked_sub(20 * SECOND);
    assert!(late.is_some_and(|late| late < SECOND / 10), "{late:?}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let last = format!("load number {} failed", store.calls(Method::Load));
    for part in [&*last, "within 20s (open_timeout)", "map \"map\""] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// An error that does not pass with time is returned at once.
#[tokio::test(start_paused = true)]
async fn other_errors_are_not_waited_out() {
    for kind in [
        ErrorKind::Unusable,
        ErrorKind::Corrupt,
        ErrorKind::Invalid,
        ErrorKind::Closed,
    ] {
        let store = store();
        store.down(kind);
        let begun = Instant::now();
        let opening = builder::<u32>(&store).open_timeout(10 * SECOND).open();
        assert_eq!(opening.await.unwrap_err().kind(), kind);
        assert_eq!(store.calls(Method::Load), 1);
        assert!(begun.elapsed() < SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_that_is_given_up_leaves_nothing_behind() {
    let store = store();
    store.down(ErrorKind::Unavailable);
    let opening = builder::<u32>(&store).open_timeout(10 * SECOND).open();
    let waited = tokio::time::timeout(SECOND, opening).await;
    assert!(waited.is_err());
    let loads = store.calls(Method::Load);
    sleep(20 * SECOND).await;
    assert_eq!(store.calls(Method::Load), loads);
    store.up();
    open_numbers(&store)
        .await
        .insert_and_save("a", 1)
        .await
        .unwrap();
    // An `open` that is never polled does nothing.
    store.down(ErrorKind::Unavailable);
    let loads = store.calls(Method::Load);
    drop(builder::<u32>(&store).open_timeout(SECOND).open());
    assert_eq!(store.calls(Method::Load), loads);
    let failed = builder::<u32>(&store).open().now_or_never();
    assert!(failed.unwrap().is_err());
}

/// A provider whose first load fails after one record. The next load does not have that record.
#[derive(Debug)]
struct Broken {
    store: Memory,
    breaks: AtomicBool,
}

#[async_trait]
impl Provider for Broken {
    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let load = self.store.load(map, wanted).await?;
        let horizon = load.horizon;
        let mut records = load.into_records().await?;
        records.sort_by(|a, b| a.key.cmp(&b.key));
        let breaks = self.breaks.swap(false, SeqCst);
        let later = records.split_off(1);
        let pages = if breaks {
            let error = Error::new(ErrorKind::Unavailable, "cut off");
            vec![Ok(records), Err(error)]
        } else {
            vec![Ok(later)]
        };
        Ok(Load::new(horizon, stream::iter(pages).boxed()))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.store.commit(batch).await
    }
}

/// Records from before the failure may be gone from the store by the next attempt.
#[tokio::test(start_paused = true)]
async fn an_open_that_is_retried_keeps_nothing_of_the_broken_load() {
    let store = Memory::new();
    let map: PersistentMap<u32> = { PersistentMap::builder(store.clone(), "map") }
        .open()
        .await
        .unwrap();
    map.extend([("a", 1), ("b", 2), ("c", 3)]);
    map.close().await.unwrap();
    let breaks = AtomicBool::new(true);
    let (seen, last) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seeing, lasting) = (seen.clone(), last.clone());
    let map: PersistentMap<u32> = open(Broken { store, breaks }, "map", |map| {
        map.open_timeout(Duration::from_secs(10))
            .on_progress(move |loaded, _| {
                seeing.fetch_add(1, SeqCst);
                lasting.store(loaded, SeqCst);
            })
    })
    .await;
    let now = ["a", "b", "c"].map(|key| map.get(key));
    assert_eq!(now, [None, Some(2), Some(3)]);
    assert_eq!((map.len(), map.pending()), (2, 0));
    assert_eq!((seen.load(SeqCst), last.load(SeqCst)), (2, 2));
}

/// A provider whose pages arrive when they are asked for a second time.
#[derive(Debug)]
struct Delayed(Memory);

#[async_trait]
impl Provider for Delayed {
    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let load = self.0.load(map, wanted).await?;
        let horizon = load.horizon;
        let records = load.into_records().await?;
        let pages = stream::iter(records).then(|record| async {
            tokio::task::yield_now().await;
            Ok(vec![record])
        });
        Ok(Load::new(horizon, pages.boxed()))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.0.commit(batch).await
    }
}

static CLOCK: LazyLock<ManualClock> = LazyLock::new(|| ManualClock::new(start()));

/// A number whose decoding takes an hour.
#[derive(serde::Serialize)]
struct Hard(u32);

impl<'de> serde::Deserialize<'de> for Hard {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        CLOCK.advance(HOUR);
        u32::deserialize(from).map(Self)
    }
}

/// While a page was decoded, the time limit for the next one passed: a load of values that are
/// slow to decode failed as if the store had not answered.
#[tokio::test]
async fn a_load_of_values_that_are_slow_to_decode_does_not_time_out() {
    let store = Memory::new();
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    map.extend((0..30).map(|n| (n.to_string(), n)));
    map.close().await.unwrap();
    let builder = PersistentMap::<Hard>::builder(Delayed(store), "map").clock(CLOCK.clone());
    let map = builder.commit_timeout(SECOND).open().await.unwrap();
    assert_eq!(map.read("7", |value| value.0), Some(7));
    map.close().await.unwrap();
}
