//! Faults of one shard: each change is applied once or reported.

use std::{collections::BTreeSet, future::poll_fn, pin::pin, task::Poll, time::Duration};

use persistify::{
    Batch, Committed, ErrorKind, Health, Layer, Memory, PersistentMap, Provider, Result, Sharded,
    async_trait,
    testing::{Fault, Method},
};

use super::{NAMES, Three, key_on, records_of};
use crate::support::{Pen, SECOND, as_it_is, impatient, map_name, open, put, settle, steady};

/// Inserts keys of all shards; returns their number.
fn fill(map: &PersistentMap<u32>, value: u32) -> usize {
    for n in 0..30 {
        map.insert(format!("key {n}"), value);
    }
    30
}

async fn count(three: &Three) -> usize {
    three.keys().await.iter().map(BTreeSet::len).sum()
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_on_one_shard_is_repeated_until_it_is_known() {
    for fault in [Fault::Before, Fault::After, Fault::Lost] {
        for shard in 0..3 {
            let three = Three::new();
            let map = open::<u32>(three.open(), "map", steady).await;
            three.0[shard].fail_next(2, fault(ErrorKind::Unavailable));
            let all = fill(&map, 1);
            map.flush().await.unwrap();
            assert_eq!(count(&three).await, all);
            // The identical batch, so that a shard that had applied its part repeats its answer.
            let attempts = three.0[shard].batches().into_iter().rev().take(3);
            let ids: Vec<_> = attempts.map(|batch| batch.id).collect();
            assert_eq!(ids, [ids[0]; 3]);
            for store in &three.0 {
                let records = records_of(store.inner()).await;
                let revisions: BTreeSet<_> = records.iter().map(|r| r.revision).collect();
                assert_eq!(revisions.len(), 1);
            }
            map.close().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_hangs_is_given_up_and_asked_again() {
    let three = Three::new();
    let map = open::<u32>(three.open(), "map", |map| {
        steady(map).commit_timeout(SECOND)
    })
    .await;
    let hang = three.0[1].hang_next();
    let all = fill(&map, 1);
    map.flush().await.unwrap();
    hang.release();
    fill(&map, 2);
    map.close().await.unwrap();
    assert_eq!(count(&three).await, all);
    let map = open::<u32>(three.open(), "map", as_it_is).await;
    assert!(map.iter().all(|(_, value)| value == 2));
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_down_delays_saves_and_loses_nothing() {
    let three = Three::new();
    let map = open::<u32>(three.open(), "map", |map| steady(map).retry(impatient())).await;
    three.0[2].down(ErrorKind::Unavailable);
    let all = fill(&map, 1);
    let failed = map.flush().await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unavailable);
    assert!(failed.to_string().contains("\"c\""), "{failed}");
    assert_eq!(map.pending(), all);
    assert_eq!(map.get("key 1"), Some(1));
    three.0[2].up();
    map.flush().await.unwrap();
    assert_eq!(count(&three).await, all);
    assert!(matches!(*map.health().borrow(), Health::Healthy));
}

/// Other shards have applied their part when one refuses a key. The batch must not be repeated
/// for ever, and the other keys must not wait.
#[tokio::test(start_paused = true)]
async fn a_refused_key_does_not_delay_the_keys_of_other_shards() {
    for named in [true, false] {
        let three = Three::new();
        let store = three.open();
        let map = open::<u32>(store.clone(), "map", steady).await;
        let bad = key_on(&store, "b", 3);
        let shard = &three.0[1];
        if named {
            shard.refuse([&bad]);
        } else {
            shard.refuse_unnamed([&bad]);
        }
        let all = fill(&map, 1);
        assert!(map.contains_key(&bad));
        map.flush().await.unwrap_err();
        settle().await;
        let refused = map.refused();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(*refused[0].key, *bad);
        assert_eq!(count(&three).await, all - 1);
        assert!(matches!(*map.health().borrow(), Health::Healthy));
        shard.behave();
        map.retry_refused();
        map.flush().await.unwrap();
        assert_eq!(count(&three).await, all);
    }
}

/// A new entry was stored by its shard while another shard refused its part. The entry was then
/// removed: the removal must reach the store, although no save of the entry was acknowledged.
#[tokio::test(start_paused = true)]
async fn an_entry_that_was_stored_in_part_of_a_refused_batch_can_be_removed() {
    let three = Three::new();
    let store = three.open();
    let map = open::<u32>(store.clone(), "map", steady).await;
    let [bad, good] = ["a", "b"].map(|shard| key_on(&store, shard, 0));
    three.0[0].refuse([&bad]);
    // The answer to the fence of the refused batch.
    let hang = three.0[2].hang_next();
    map.insert(&bad, 1);
    map.insert(&good, 1);
    let flush = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    three.0[2].begun(Method::Commit, 3).await;
    assert!(three.keys().await[1].contains(&good));
    map.remove(&good);
    hang.release();
    flush.await.unwrap().unwrap_err();
    map.flush().await.ok();
    settle().await;
    assert!(!three.keys().await[1].contains(&good));
}

/// A layer that is pending before and after each commit.
#[derive(Debug, Clone)]
struct Slow<P>(P);

#[async_trait]
impl<P: Provider> Layer for Slow<P> {
    fn inner(&self) -> &dyn Provider {
        &self.0
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        tokio::task::yield_now().await;
        let committed = self.inner().commit(batch).await;
        tokio::task::yield_now().await;
        committed
    }
}

/// Polls a future that often; `None` if it is then still pending.
pub(super) async fn polled<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|cx| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        cx.waker().wake_by_ref();
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

#[tokio::test]
async fn a_commit_that_is_cancelled_anywhere_is_completed_by_its_repeat() {
    for polls in 0..8 {
        let stores = NAMES.map(|name| (name, Slow(Memory::new())));
        let store = Sharded::new(stores.clone()).unwrap();
        store.ping().await.unwrap();
        let mut pen = Pen::new();
        let changes = |value: &str| (0..30).map(|n| put(&format!("key {n}"), value)).collect();
        let first = pen.changes(&map_name(), changes("1")).divisible(true);
        let second = pen.changes(&map_name(), changes("2")).divisible(true);
        store.commit(&first).await.unwrap();
        let cancelled = polled(store.commit(&second), polls).await;
        let answer = store.commit(&second).await.unwrap();
        let records = records_of(&store).await;
        assert_eq!(records.len(), 30);
        for record in records {
            assert_eq!(&*record.value.unwrap().bytes, b"2");
            assert_eq!(Some(record.revision), answer.revision);
        }
        if let Some(before) = cancelled {
            assert_eq!(before.unwrap(), answer);
        }
        let late = store.commit(&first).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Superseded);
    }
}

/// A batch of one shard was given up, and the next batch was for another shard. The first one
/// must not be applied any more.
#[tokio::test]
async fn a_late_batch_is_refused_by_shards_that_the_next_one_did_not_touch() {
    let three = Three::new();
    let store = three.open();
    let mut pen = Pen::new();
    let [late, next] = ["a", "b"].map(|shard| vec![put(&key_on(&store, shard, 0), "1")]);
    let late = pen.changes(&map_name(), late);
    store.commit(&pen.changes(&map_name(), next)).await.unwrap();
    let refused = store.commit(&late).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Superseded);
    assert!(!refused.may_have_applied());
    assert!(three.keys().await[0].is_empty());
}

#[tokio::test(start_paused = true)]
async fn loads_fail_with_the_error_of_a_shard_and_single_keys_need_only_theirs() {
    let three = Three::new();
    let store = three.open();
    let map = open::<u32>(store.clone(), "map", steady).await;
    fill(&map, 1);
    map.flush().await.unwrap();
    three.0[2].down(ErrorKind::Unavailable);
    let failed = store.load(&map_name(), persistify::Wanted::All).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    let key = key_on(&store, "b", 0).into();
    let wanted = persistify::Wanted::Keys([key].into());
    let load = store.load(&map_name(), wanted).await.unwrap();
    assert_eq!(load.into_records().await.unwrap().len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
}
