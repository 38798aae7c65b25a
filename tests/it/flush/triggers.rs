//! The triggers of a flush: size, age, and a request.

use super::*;

#[tokio::test(start_paused = true)]
async fn enough_pending_keys_start_a_flush() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).batch(3, HOUR)).await;
    map.insert("a", 1);
    map.insert("b", 2);
    map.insert("b", 3);
    sleep(Duration::from_mins(59)).await;
    assert_eq!(store.calls(Method::Commit), 0);
    let start = Instant::now();
    map.insert("c", 4);
    store.ended(Method::Commit, 1).await;
    about(start.elapsed(), Duration::ZERO);
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 3), ("c", 4)]));
}

/// Story: keys that changed all the time filled the queue as soon as a commit had emptied it. The
/// map committed them continuously, and writers met the flusher at every entry.
#[tokio::test(start_paused = true)]
async fn keys_that_change_all_the_time_are_committed_a_hundred_times_a_second() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).batch(2, HOUR)).await;
    for n in 0..1_000 {
        map.insert("a", n);
        map.insert("b", n);
        sleep(Duration::from_millis(1)).await;
    }
    let commits = store.calls(Method::Commit);
    assert!(
        (90..=101).contains(&commits),
        "{commits} commits in a second"
    );
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 999), ("b", 999)]));
}

#[tokio::test(start_paused = true)]
async fn the_age_of_the_oldest_change_starts_a_flush() {
    let store = store();
    let map = open_numbers(&store).await;
    for _ in 0..3 {
        let (start, calls) = (Instant::now(), store.calls(Method::Commit));
        map.insert("a", 1);
        sleep(SECOND / 2).await;
        map.insert("b", 2);
        sleep(SECOND / 4).await;
        map.insert("a", 3);
        store.ended(Method::Commit, calls + 1).await;
        about(start.elapsed(), SECOND);
        settle().await;
        assert_eq!(map.pending(), 0);
        sleep(HOUR).await;
    }
    assert_eq!(store.calls(Method::Commit), 3);
    assert_eq!(stored(&store).await, pairs([("a", 3), ("b", 2)]));
}

#[tokio::test(start_paused = true)]
async fn a_write_during_a_commit_waits_from_its_own_time() {
    let store = store();
    let map = open_numbers(&store).await;
    let hang = store.hang_next();
    map.insert("a", 1);
    hang.hangs().await;
    sleep(SECOND / 2).await;
    map.insert("b", 2);
    let written = Instant::now();
    assert_eq!(map.pending(), 2);
    hang.release();
    store.begun(Method::Commit, 2).await;
    assert!(written.elapsed() <= SECOND + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_request_starts_a_flush() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert("a", 1);
    let start = Instant::now();
    map.flush().await.unwrap();
    about(start.elapsed(), Duration::ZERO);
    assert_eq!(stored(&store).await, pairs([("a", 1)]));
    sleep(HOUR).await;
    assert_eq!(store.calls(Method::Commit), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flush_with_nothing_pending_calls_no_provider() {
    let store = store();
    let map = open_numbers(&store).await;
    map.flush().await.unwrap();
    map.insert("a", 1);
    map.remove("a");
    map.flush().await.unwrap();
    map.insert("a", 1);
    map.flush().await.unwrap();
    assert_eq!(store.calls(Method::Commit), 1);
    map.flush().await.unwrap();
    map.remove("nothing");
    map.update("nothing", |_| ());
    map.replace("nothing", 1);
    assert_eq!(map.remove_and_save("nothing").await.unwrap(), None);
    sleep(HOUR).await;
    let quiet = [Method::Release, Method::Maps, Method::Ping, Method::Close];
    assert_eq!(quiet.map(|method| store.calls(method)), [0; 4]);
    assert_eq!(store.calls(Method::Commit), 1);
    assert_eq!(map.stats().oldest_pending, None);
}

/// A caller that had just got the `Ok` of its save, and asked for the age of the oldest pending
/// change, got the age of a change that was no longer pending.
#[tokio::test(start_paused = true)]
async fn a_map_with_nothing_pending_has_no_oldest_change() {
    let store = store();
    let map = open_numbers(&store).await;
    for n in 0..3 {
        sleep(SECOND).await;
        map.insert_and_save("a", n).await.unwrap();
        assert_eq!((map.pending(), map.stats().oldest_pending), (0, None));
    }
}

#[tokio::test(start_paused = true)]
async fn batches_are_split_by_keys() {
    let store = store();
    let map: PersistentMap<u32> = open(store.clone(), "map", |map| steady(map).max_batch(10)).await;
    map.extend((0..25).map(|n| (n.to_string(), n)));
    map.flush().await.unwrap();
    let sizes: Vec<_> = store.batches().iter().map(|b| keys(b).len()).collect();
    assert_eq!(sizes, [10, 10, 5]);
    let order: Vec<_> = store.batches().iter().flat_map(keys).collect();
    let written: Vec<_> = (0..25).map(|n| n.to_string()).collect();
    assert_eq!(order, written, "they leave in the order in which they came");
    assert_eq!(stored(&store).await, in_memory(&map));
}

#[tokio::test(start_paused = true)]
async fn batches_are_split_by_bytes() {
    let store = store();
    let map: PersistentMap<String> =
        open(store.clone(), "map", |map| steady(map).max_batch_bytes(100)).await;
    for n in 0..4 {
        map.insert(n.to_string(), "x".repeat(47)); // with key and quotes, 50 bytes
    }
    map.insert("large", "x".repeat(10_000));
    map.insert("z", String::new());
    map.flush().await.unwrap();
    let batches: Vec<_> = store.batches().iter().map(keys).collect();
    let expected: [&[&str]; 4] = [&["0", "1"], &["2", "3"], &["large"], &["z"]];
    assert_eq!(batches, expected);
}

#[tokio::test(start_paused = true)]
async fn the_triggers_change_while_the_map_runs() {
    let store = store();
    let map: PersistentMap<u32> =
        open(store.clone(), "map", |map| steady(map).batch(1_000, HOUR)).await;
    map.extend([("a", 1), ("b", 2)]);
    sleep(SECOND).await;
    map.set_batch(2, HOUR).unwrap();
    store.ended(Method::Commit, 1).await;
    map.insert("c", 3);
    sleep(SECOND).await;
    let start = Instant::now();
    map.set_batch(1_000, SECOND * 3).unwrap();
    store.ended(Method::Commit, 2).await;
    about(start.elapsed(), SECOND * 2);
    map.set_batch(1_000, HOUR).unwrap();
    map.insert("d", 4);
    sleep(Duration::from_mins(59)).await;
    assert_eq!(store.calls(Method::Commit), 2);
    let error = map.set_batch(1, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// An interval of `Duration::MAX` disables flushes by age. The deadline overflowed, the
/// background task panicked, and nothing was saved any more.
#[tokio::test(start_paused = true)]
async fn the_longest_times_mean_never() {
    let store = store();
    let map = open::<u32>(store.clone(), "map", |map| {
        steady(map).batch(2, Duration::MAX)
    })
    .await;
    map.insert("a", 1);
    sleep(HOUR).await;
    assert_eq!(store.calls(Method::Commit), 0);
    map.insert("b", 2);
    store.ended(Method::Commit, 1).await;
    map.close_within(Duration::MAX).await.unwrap();
}
