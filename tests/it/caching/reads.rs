//! Reads that extend an idle deadline, and how it gets to the store.

use super::*;

fn touches(store: &Faulty<Memory>) -> (usize, usize) {
    let batches = store.batches();
    let changes = batches
        .iter()
        .flat_map(|b| b.maps.iter().flat_map(|part| &part.changes));
    let (touches, others): (Vec<_>, Vec<_>) =
        changes.partition(|change| matches!(change.op, Op::Touch { .. }));
    (touches.len(), others.len())
}

#[tokio::test]
async fn the_store_hears_of_an_idle_deadline_that_moved_by_a_tenth_and_not_of_each_read() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_idle(seconds(100))).await;
    map.insert_and_save("a", 1).await.unwrap();
    for second in 1..=100 {
        clock.advance(SECOND);
        for _ in 0..10 {
            map.get("a");
        }
        map.flush().await.unwrap();
        let (touches, puts) = touches(&store);
        assert_eq!(puts, 1);
        assert!(
            (second / 11..=second / 10).contains(&touches),
            "{second}: {touches}"
        );
        let told = records(store.inner()).await["a"].expires_at.unwrap();
        let real = map.expires_at("a").unwrap();
        assert!(told <= real && real <= told + seconds(10), "{second}");
    }
    assert_eq!(records(store.inner()).await["a"].updated_at, Some(start()));
}

/// A read that extended the deadline while a commit of the entry was in flight was taken for
/// part of that commit, which had been encoded before. The store never got the new deadline,
/// and after a crash the entry expired long before its time.
#[tokio::test]
async fn a_read_during_a_commit_is_told_to_the_store_after_it() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_idle(seconds(100))).await;
    let hang = store.hang_next();
    let saving = tokio::spawn({
        let map = map.clone();
        async move { map.insert_and_save("a", 1).await }
    });
    hang.hangs().await;
    clock.advance(seconds(25));
    map.get("a");
    hang.release();
    saving.await.unwrap().unwrap();
    map.flush().await.unwrap();
    let told = records(store.inner()).await["a"].expires_at;
    assert_eq!(told, map.expires_at("a"));
    assert_eq!(stored_values::<u64>(store.inner()).await["a"], 1);
}

/// As above, but the commit fails: the value is still pending, not only its expiry.
#[tokio::test]
async fn a_read_during_a_commit_that_fails_does_not_lose_the_value() {
    let (store, clock) = (Faulty::new(Memory::new()), ManualClock::new(start()));
    let map = open(builder(&store, &clock).time_to_idle(seconds(100))).await;
    map.insert("a", 1);
    let (reader, time) = (map.clone(), clock.clone());
    store.set_rule(move |call| {
        if call.method != Method::Commit || call.number > 1 {
            return Fault::None;
        }
        time.advance(seconds(25));
        reader.get("a");
        Fault::Before(ErrorKind::Unavailable)
    });
    let flushing = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    while !flushing.is_finished() {
        clock.advance(Duration::from_millis(50));
        settle().await;
    }
    flushing.await.unwrap().unwrap();
    assert_eq!(
        stored_values::<u64>(store.inner()).await,
        HashMap::from([("a".to_owned(), 1)])
    );
    assert_eq!(
        records(store.inner()).await["a"].expires_at,
        map.expires_at("a")
    );
}
