//! The provider that fails on purpose, and the manual clock.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use persistify::{
    Batch, BatchId, Change, Clock, ErrorKind, MapBatch, MapName, Memory, Payload, Provider,
    Revision, Wanted, WriterId,
    testing::{Fault, Faulty, Hang, ManualClock, Method},
};

fn map() -> MapName {
    MapName::new("stock").unwrap()
}

fn batch_by(writer: WriterId, sequence: u64, keys: &[&str]) -> Batch {
    let put = |key: &&str| Change::put(*key, Payload::json(sequence.to_string()), None);
    let part = MapBatch::new(map(), keys.iter().map(put).collect());
    let id = BatchId::new(writer, sequence);
    Batch::new(id, Revision::ZERO, SystemTime::now(), [part])
}

fn batch(keys: &[&str]) -> Batch {
    batch_by(WriterId::random(), 1, keys)
}

async fn stored(store: &Faulty<Memory>) -> Vec<String> {
    let map = map();
    let load = store.inner().load(&map, Wanted::All).await.unwrap();
    let records = load.into_records().await.unwrap();
    records
        .iter()
        .map(|record| record.key.to_string())
        .collect()
}

#[tokio::test]
async fn before_lost_and_after_differ_in_effect_and_in_what_they_say() {
    for (fault, effect, may_have_applied) in [
        (Fault::Before(ErrorKind::Unavailable), false, false),
        (Fault::Lost(ErrorKind::Unusable), false, true),
        (Fault::After(ErrorKind::Unavailable), true, true),
    ] {
        let store = Faulty::new(Memory::new());
        store.fail_next(1, fault);
        let error = store.commit(&batch(&["a"])).await.unwrap_err();
        assert_eq!(error.may_have_applied(), may_have_applied, "{error}");
        assert_eq!(stored(&store).await.len(), usize::from(effect), "{error}");
        assert_eq!(error.to_string(), "commit number 1 failed on purpose");
        store.commit(&batch(&["b"])).await.unwrap();
    }
}

#[tokio::test]
async fn the_next_and_the_nth_commit_fail_and_no_other() {
    let store = Faulty::new(Memory::new());
    store.commit(&batch(&[])).await.unwrap();
    store.fail_next(2, Fault::Before(ErrorKind::Unavailable));
    store.fail_nth(4, Fault::Before(ErrorKind::Unusable));
    let mut kinds = Vec::new();
    for _ in 0..5 {
        let answer = store.commit(&batch(&[])).await;
        kinds.push(answer.err().map(|error| error.kind()));
    }
    let unavailable = Some(ErrorKind::Unavailable);
    let expected = [
        unavailable,
        unavailable,
        None,
        Some(ErrorKind::Unusable),
        None,
    ];
    assert_eq!(kinds, expected);
    assert_eq!(store.calls(Method::Commit), 6);
    assert_eq!(store.calls(Method::Load), 0);
}

#[tokio::test]
async fn every_method_can_fail_and_is_counted() {
    let store = Faulty::new(Memory::new());
    let other = store.clone();
    let methods = [
        Method::Load,
        Method::Commit,
        Method::Release,
        Method::Maps,
        Method::Ping,
        Method::Close,
    ];
    for method in methods {
        store.fail_next_of(method, 1, Fault::Before(ErrorKind::Unusable));
    }
    for expected in [Some(ErrorKind::Unusable), None] {
        let map = map();
        let load = other.load(&map, Wanted::All).await.map(drop);
        let commit = other.commit(&batch(&[])).await.map(drop);
        let release = other.release(&map).await;
        let maps = other.maps().await.map(drop);
        let ping = other.ping().await.map(drop);
        let close = other.close().await;
        for answer in [load, commit, release, maps, ping, close] {
            assert_eq!(answer.err().map(|error| error.kind()), expected);
        }
    }
    for method in methods {
        assert_eq!((store.calls(method), store.calls_ended(method)), (2, 2));
    }
}

#[tokio::test]
async fn a_rule_sees_the_call() {
    let store = Faulty::new(Memory::new());
    store.set_rule(|call| match (&call.batch, &call.map) {
        (Some(batch), None) if batch.maps[0].changes.len() > 1 => {
            Fault::Lost(ErrorKind::Unavailable)
        }
        (None, Some(map)) if map.as_str() == "stock" && call.number == 2 => {
            Fault::Before(ErrorKind::Corrupt)
        }
        _ => Fault::None,
    });
    store.commit(&batch(&["a"])).await.unwrap();
    store.commit(&batch(&["a", "b"])).await.unwrap_err();
    let map = map();
    store.load(&map, Wanted::All).await.unwrap();
    let error = store.load(&map, Wanted::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    store.behave();
    store.commit(&batch(&["a", "b"])).await.unwrap();
}

#[tokio::test]
async fn one_commit_in_three_fails_by_turns_before_and_after() {
    let store = Faulty::new(Memory::new());
    store.fail_one_in(3);
    let mut failed = Vec::new();
    for number in 1..=12 {
        let key = number.to_string();
        let answer = store.commit(&batch(&[&key])).await;
        let there = stored(&store).await.contains(&key);
        failed.extend(answer.is_err().then_some((number, there)));
    }
    assert_eq!(failed, [(3, false), (6, true), (9, false), (12, true)]);
}

#[tokio::test]
async fn a_store_that_is_down_fails_every_call_without_effect() {
    let store = Faulty::new(Memory::new());
    store.down(ErrorKind::Unavailable);
    for _ in 0..3 {
        let error = store.commit(&batch(&["a"])).await.unwrap_err();
        assert!(!error.may_have_applied());
        assert!(store.ping().await.is_err());
    }
    assert!(stored(&store).await.is_empty());
    store.up();
    store.ping().await.unwrap();
    store.commit(&batch(&["a"])).await.unwrap();
}

#[tokio::test]
async fn refused_keys_are_named_or_not() {
    let store = Faulty::new(Memory::new());
    store.refuse(["bad", "worse"]);
    let error = store
        .commit(&batch(&["a", "bad", "b", "worse"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(
        error.keys(),
        ["bad".into(), "worse".into()] as [Arc<str>; 2]
    );
    store.refuse_unnamed(["bad"]);
    let error = store.commit(&batch(&["a", "bad"])).await.unwrap_err();
    assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Refused, 0));
    store.commit(&batch(&["a", "worse"])).await.unwrap();
    let delete = MapBatch::new(map(), vec![Change::delete("bad")]);
    let id = BatchId::new(WriterId::random(), 1);
    let delete = Batch::new(id, Revision::ZERO, SystemTime::now(), [delete]);
    store.commit(&delete).await.unwrap();
}

#[tokio::test]
async fn a_call_that_hangs_is_released() {
    let store = Faulty::new(Memory::new());
    let hang = store.hang_next();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.commit(&batch(&["a"])).await }
    });
    hang.hangs().await;
    assert!(stored(&store).await.is_empty());
    assert_eq!(
        (
            store.calls(Method::Commit),
            store.calls_ended(Method::Commit)
        ),
        (1, 0)
    );
    hang.release();
    waiting.await.unwrap().unwrap();
    store.ended(Method::Commit, 1).await;
    assert_eq!(stored(&store).await, ["a"]);
}

#[tokio::test]
async fn a_call_that_hangs_is_failed() {
    let store = Faulty::new(Memory::new());
    let hang = Hang::new();
    store.fail_next_of(Method::Ping, 1, Fault::Hang(hang.clone()));
    let mut ping = store.ping();
    assert!((&mut ping).now_or_never().is_none());
    hang.fail(ErrorKind::Unavailable);
    let error = ping.await.unwrap_err();
    assert!(error.may_have_applied());
}

#[tokio::test]
async fn a_commit_given_up_while_it_hung_lands_late_and_changes_nothing() {
    let store = Faulty::new(Memory::new());
    let writer = WriterId::random();
    let hang = store.hang_next();
    let late = batch_by(writer, 1, &["late"]);
    assert!(store.commit(&late).now_or_never().is_none());
    assert_eq!(store.calls_ended(Method::Commit), 1);
    store.commit(&batch_by(writer, 2, &["next"])).await.unwrap();
    let answers = hang.land().await;
    assert_eq!(answers.len(), 1);
    let error = answers[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Superseded);
    assert_eq!(stored(&store).await, ["next"]);
    assert!(hang.land().await.is_empty());
}

#[tokio::test]
async fn a_commit_that_hangs_lands_once_although_it_is_also_released() {
    let store = Faulty::new(Memory::new());
    let hang = store.hang_next();
    let batch = batch(&["a"]);
    let mut commit = store.commit(&batch);
    assert!((&mut commit).now_or_never().is_none());
    let landed = hang.land().await;
    assert_eq!(stored(&store).await, ["a"]);
    hang.release();
    assert_eq!(commit.await.unwrap(), *landed[0].as_ref().unwrap());
}

#[tokio::test]
async fn the_batches_are_noted_in_order() {
    let store = Faulty::new(Memory::new());
    store.fail_next(1, Fault::Lost(ErrorKind::Unavailable));
    let first = batch(&["a", "b"]);
    store.commit(&first).await.unwrap_err();
    store.commit(&first).await.unwrap();
    let other = batch(&["c"]);
    store.commit(&other).await.unwrap();
    assert_eq!(store.batches(), [first.clone(), first, other]);
}

#[tokio::test]
async fn a_test_waits_for_the_nth_call_without_sleeping() {
    let store = Faulty::new(Memory::new());
    let waiting = tokio::spawn({
        let store = store.clone();
        async move {
            store.begun(Method::Commit, 3).await;
            store.ended(Method::Commit, 3).await;
            store.calls(Method::Commit)
        }
    });
    for _ in 0..3 {
        assert!(!waiting.is_finished());
        store.commit(&batch(&[])).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(waiting.await.unwrap(), 3);
}

const START: SystemTime = SystemTime::UNIX_EPOCH;

#[tokio::test]
async fn the_clock_stands_still_until_it_is_told_to_go_on() {
    let clock = ManualClock::new(START);
    let same = clock.clone();
    assert_eq!(clock.now(), START);
    clock.advance(Duration::from_secs(2));
    assert_eq!(same.now(), START + Duration::from_secs(2));
    same.advance_to(START + Duration::from_secs(5));
    clock.advance_to(START);
    assert_eq!(clock.now(), START + Duration::from_secs(5));
}

#[tokio::test]
async fn sleepers_wake_when_their_time_has_come() {
    let clock = ManualClock::new(START);
    let mut sleep = clock.sleep_until(START + Duration::from_secs(10));
    assert!((&mut sleep).now_or_never().is_none());
    clock.advance(Duration::from_millis(9_999));
    assert!((&mut sleep).now_or_never().is_none());
    clock.advance(Duration::from_millis(1));
    assert!((&mut sleep).now_or_never().is_some());
    assert!(clock.sleep_until(START).now_or_never().is_some());
}

#[tokio::test]
async fn a_sleeper_in_another_task_wakes() {
    let clock = ManualClock::new(START);
    let sleep = clock.sleep_until(START + Duration::from_secs(1));
    let sleeper = tokio::spawn(sleep);
    tokio::task::yield_now().await;
    clock.advance(Duration::from_hours(1));
    drop(clock);
    sleeper.await.unwrap();
}
