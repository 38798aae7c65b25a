//! Entries that expire while other processes write them.

use std::collections::HashMap;

use persistify::{
    Change, ErrorKind, Expect, Memory, RetryPolicy,
    testing::{Fault, Faulty, Hang, ManualClock, Method},
};

use super::{SECOND, builder, listening, open, seconds};
use crate::support::{put, records, settle, start, stored_values, write_as_another};

/// An entry is read while an earlier read of it is being committed. Meanwhile another process
/// overwrites the key in the store: its value wins, and the touch does not extend it.
#[tokio::test]
async fn a_touch_that_lost_to_another_process_takes_its_value_also_when_read_meanwhile() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_idle(seconds(100))).await;
    map.insert_and_save("a", 1).await.unwrap();
    clock.advance(seconds(25));
    let hang = store.hang_next();
    map.get("a");
    let flushing = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    hang.hangs().await;
    write_as_another(store.inner(), vec![put("a", "2")]).await;
    clock.advance(seconds(25));
    map.get("a");
    hang.release();
    flushing.await.unwrap().unwrap();
    map.flush().await.unwrap();
    assert_eq!((map.get("a"), map.expires_at("a")), (Some(2), None));
    assert_eq!(records(store.inner()).await["a"].expires_at, None);
    assert_eq!(map.pending(), 0);
}

#[tokio::test]
async fn a_sweep_never_removes_what_another_process_has_written() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let times = || builder(&store, &clock).time_to_live(seconds(10));
    let (first, heard) = listening(times());
    let a = open(first).await;
    a.insert_and_save("k", 1).await.unwrap();
    a.insert_and_save("mine", 1).await.unwrap();
    let b = open(times()).await;
    clock.advance(seconds(9));
    b.insert_and_save("k", 2).await.unwrap();
    clock.advance(SECOND);
    settle().await;
    assert_eq!(a.get("k"), None, "a knows of its own entry only");
    a.flush().await.unwrap();
    assert_eq!(
        stored_values::<u64>(&store).await,
        HashMap::from([("k".to_owned(), 2)])
    );
    assert_eq!(a.get("k"), Some(2));
    assert_eq!(a.expires_at("k"), b.expires_at("k"));
    assert_eq!((a.len(), a.pending()), (1, 0));
    let mut heard = heard.lock().clone();
    heard.sort();
    assert_eq!(heard, [("k".to_owned(), 1), ("mine".to_owned(), 1)]);
    clock.advance(seconds(9));
    settle().await;
    assert_eq!((a.get("k"), a.len()), (None, 0));
}

/// A reload adopts an expiry that another process has changed. A removal by another process is
/// noticed by this map's own sweep or by a reload.
#[tokio::test]
async fn a_reload_takes_the_expiry_that_another_process_gave() {
    let (store, clock) = (Memory::new(), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_live(seconds(10))).await;
    map.extend([("a", 1), ("b", 1)]);
    map.flush().await.unwrap();
    let later = start() + seconds(60);
    let theirs = vec![Change::touch("a", Some(later)), Change::touch("b", None)];
    write_as_another(&store, theirs).await;
    map.reload().await.unwrap();
    assert_eq!(map.expires_at("a"), Some(later));
    assert_eq!((map.get("b"), map.expires_at("b")), (Some(1), None));
}

/// An entry expired whose commit had an unknown outcome. Its removal was committed without a
/// condition, and removed a value that another process had written meanwhile.
#[tokio::test]
async fn an_entry_that_may_be_saved_expires_without_removing_anothers_value() {
    for (landed, theirs) in [(false, true), (true, true), (true, false), (false, false)] {
        let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
        let map = open(builder(&store, &clock).retry(RetryPolicy::default().jitter(false))).await;
        let unknown = if landed { Fault::After } else { Fault::Lost };
        store.fail_next(1, unknown(ErrorKind::Unavailable));
        store.fail_nth(2, Fault::Before(ErrorKind::Superseded));
        map.insert_with_ttl("a", 1, seconds(100));
        let flush = tokio::spawn({
            let map = map.clone();
            async move { map.flush().await }
        });
        settle().await;
        clock.advance(SECOND);
        // Its outcome stays unknown, and it stays pending.
        let failed = flush.await.unwrap().unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Superseded);
        // It expires earlier than the value that may be in the store.
        map.insert_with_ttl("a", 2, SECOND);
        if theirs {
            write_as_another(store.inner(), vec![put("a", "3")]).await;
        }
        clock.advance(SECOND);
        settle().await;
        assert_eq!(map.get("a"), None);
        clock.advance(seconds(60));
        settle().await;
        map.flush().await.unwrap();
        let expected = theirs.then_some(3);
        assert_eq!(
            stored_values::<u64>(store.inner()).await.get("a").copied(),
            expected
        );
        assert_eq!(map.get("a"), expected, "landed: {landed}");
    }
}

/// While the removal of an expired entry was in flight, another process wrote the key, and this map
/// wrote it too, with a short TTL. When that entry expired, its removal was conditioned on the
/// other process's value, and removed it.
#[tokio::test]
async fn an_entry_that_expires_twice_never_removes_anothers_value() {
    for fails in [false, true] {
        for expires_in_flight in [false, true] {
            let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
            let retry = RetryPolicy::default().max_attempts(1);
            let retry = retry.probe_delay(seconds(10)).jitter(false);
            let map = open(builder(&store, &clock).retry(retry)).await;
            map.insert_with_ttl("a", 1, SECOND);
            map.flush().await.unwrap();
            clock.advance(SECOND);
            settle().await;
            let hang = store.hang_next();
            if fails {
                store.fail_nth(2, Fault::Before(ErrorKind::Unavailable));
            }
            let flush = tokio::spawn({
                let map = map.clone();
                async move { map.flush().await }
            });
            hang.hangs().await;
            write_as_another(store.inner(), vec![put("a", "3")]).await;
            map.insert_with_ttl("a", 2, SECOND);
            if expires_in_flight {
                clock.advance(SECOND);
                settle().await;
            }
            hang.release();
            let flushed = flush.await.unwrap();
            let written_later = !fails && !expires_in_flight;
            assert_eq!(flushed.is_err(), fails && !expires_in_flight);
            clock.advance(SECOND);
            settle().await;
            // The store is up again, and the next probe finds that out.
            clock.advance(seconds(10));
            settle().await;
            map.flush().await.unwrap();
            // This map's write was committed after the other process's, so it overwrote that value.
            let expected = (!written_later).then_some(3);
            let stored = stored_values::<u64>(store.inner()).await;
            assert_eq!(
                stored.get("a").copied(),
                expected,
                "{fails} {expires_in_flight}"
            );
            assert_eq!(map.get("a"), expected, "{fails} {expires_in_flight}");
        }
    }
}

/// An entry that expired, or was read, during a reload was taken for a local change. The value
/// that another process had written was then removed from the store, or got the expiry of the
/// old one.
#[tokio::test]
async fn an_entry_that_expires_or_is_read_during_a_reload_keeps_anothers_value() {
    for is_read in [false, true] {
        let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
        let map = open(builder(&store, &clock).time_to_idle(seconds(10))).await;
        map.insert_and_save("a", 1).await.unwrap();
        let hang = Hang::new();
        store.fail_next_of(Method::Load, 1, Fault::Hang(hang.clone()));
        write_as_another(store.inner(), vec![put("a", "2")]).await;
        let reload = tokio::spawn({
            let map = map.clone();
            async move { map.reload().await }
        });
        hang.hangs().await;
        if is_read {
            clock.advance(seconds(5));
            assert_eq!(map.get("a"), Some(1));
        } else {
            clock.advance(seconds(10));
            settle().await;
            assert_eq!(map.get("a"), None);
        }
        hang.release();
        reload.await.unwrap().unwrap();
        map.flush().await.unwrap();
        let stored = records(store.inner()).await;
        let theirs = stored.get("a").map(|record| record.expires_at);
        assert_eq!(theirs, Some(None), "read: {is_read}");
        assert_eq!(map.get("a"), Some(2), "read: {is_read}");
        assert_eq!(map.expires_at("a"), None, "read: {is_read}");
        assert_eq!((map.len(), map.pending()), (1, 0), "read: {is_read}");
    }
}

/// A key was written while its conditional save was in flight, and that entry expired. The save
/// conflicted with the stored value, which was older than both. Memory adopted that value, although
/// it had been overwritten long before.
#[tokio::test]
async fn an_overwritten_value_does_not_come_back_when_the_new_one_expires() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open(builder(&store, &clock)).await;
    map.insert_and_save("a", 1).await.unwrap();
    let hang = store.hang_next();
    let late = map.clone();
    let late = tokio::spawn(async move { late.save_if("a", 2, Expect::Absent).await });
    hang.hangs().await;
    map.insert_with_ttl("a", 3, SECOND);
    clock.advance(2 * SECOND);
    settle().await;
    hang.release();
    let error = late.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(map.get("a"), None);
    map.flush().await.unwrap();
    assert!(records(store.inner()).await.is_empty());
}
