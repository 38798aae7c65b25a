//! Expiring entries whose key has a commit of unknown outcome.

use persistify::{
    CachingMap, CachingMapBuilder, ErrorKind, Expect, Memory,
    testing::{Fault, Faulty, ManualClock},
};
use std::time::Duration;

use crate::support::{impatient, records, settle, start};

type Store = Faulty<Memory>;

const SECOND: Duration = Duration::from_secs(1);

fn caching(store: &Store, clock: &ManualClock) -> CachingMapBuilder<u32> {
    CachingMap::builder(store.clone(), "map")
        .clock(clock.clone())
        .batch(1_000, Duration::from_hours(1))
        .commit_timeout(Duration::MAX)
        .retry(impatient())
}

/// Saves the key `k` with a lost answer.
async fn lose(store: &Store, map: &CachingMap<u32>, fault: Fault) {
    store.fail_next(1, fault);
    let save = map.save_if_with_ttl("k", 4, Expect::Any, 100 * SECOND);
    assert!(save.await.unwrap_err().may_have_applied());
}

const LOST: [Fault; 2] = super::LOST;

/// A write after the commit has expired, but it was the later write: the committed value does
/// not reappear.
#[tokio::test]
async fn a_later_write_that_expired_is_not_replaced_by_an_earlier_commit() {
    for fault in LOST {
        let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
        let map = caching(&store, &clock).open().await.unwrap();
        lose(&store, &map, fault).await;
        store.down(ErrorKind::Unavailable);
        map.insert_with_ttl("k", 5, SECOND);
        clock.advance(2 * SECOND);
        settle().await;
        assert_eq!((map.get("k"), map.len()), (None, 0));
        store.up();
        clock.advance(2 * SECOND);
        settle().await;
        assert_eq!((map.get("k"), map.len()), (None, 0));
        map.flush().await.unwrap();
        assert!(records(store.inner()).await.is_empty());
        assert_eq!((map.get("k"), map.pending()), (None, 0));
    }
}

/// An expiry is no write: the committed value takes effect.
#[tokio::test]
async fn an_entry_that_expires_meanwhile_gives_way_to_what_landed() {
    for (fault, landed) in [(LOST[0].clone(), true), (LOST[1].clone(), false)] {
        let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
        let map = caching(&store, &clock).open().await.unwrap();
        let first = map.insert_with_ttl_and_save("k", 1, SECOND);
        first.await.unwrap();
        lose(&store, &map, fault).await;
        store.down(ErrorKind::Unavailable);
        clock.advance(2 * SECOND);
        settle().await;
        assert_eq!((map.get("k"), map.len()), (None, 0));
        store.up();
        if !landed {
            store.refuse(["k"]);
        }
        clock.advance(2 * SECOND);
        settle().await;
        map.flush().await.unwrap();
        assert_eq!(map.get("k"), landed.then_some(4));
        let stored = records(store.inner()).await;
        let expires_at = stored.get("k").and_then(|record| record.expires_at);
        let ends = start() + 100 * SECOND;
        assert_eq!(expires_at, landed.then_some(ends));
        assert_eq!((map.expires_at("k"), map.pending()), (expires_at, 0));
    }
}

/// A read extends the deadline of the current entry. It does not overwrite a commit that was
/// applied, and is not lost if none was.
#[tokio::test]
async fn a_read_meanwhile_is_no_write() {
    for landed in [true, false] {
        let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
        let map = caching(&store, &clock).time_to_idle(100 * SECOND);
        let map = map.open().await.unwrap();
        map.insert_and_save("k", 1).await.unwrap();
        store.fail_next(1, LOST[usize::from(!landed)].clone());
        let error = map.save_if("k", 4, Expect::Present).await.unwrap_err();
        assert!(error.may_have_applied());
        store.down(ErrorKind::Unavailable);
        clock.advance(50 * SECOND);
        assert_eq!(map.get("k"), Some(1));
        settle().await;
        store.up();
        if !landed {
            store.refuse(["k"]);
        }
        clock.advance(SECOND);
        settle().await;
        store.behave();
        map.flush().await.unwrap();
        let value = if landed { 4 } else { 1 };
        let stored = records(store.inner()).await;
        let payload = stored["k"].value.clone().unwrap();
        assert_eq!(&*payload.bytes, value.to_string().as_bytes());
        assert_eq!(map.expires_at("k"), stored["k"].expires_at);
        let read_at = start() + 50 * SECOND;
        let ends = if landed { start() } else { read_at } + 100 * SECOND;
        // A deadline is up to three milliseconds early.
        let early = ends.duration_since(stored["k"].expires_at.unwrap());
        assert!(early.unwrap() <= 3 * SECOND / 1_000);
        assert_eq!((map.pending(), map.get("k")), (0, Some(value)));
    }
}
