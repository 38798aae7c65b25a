//! Assembly of batches, step by step.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::{
    batch::Committed,
    clock::{MapClock, SystemClock},
    error::{Error, ErrorKind},
    map::{
        api::builder::options::Options,
        core::Core,
        lifetime::Forever,
        load::loading::Loaded,
        shared::Shared,
        table::locked_entry::LockedEntry,
        write_behind::{
            conflicts::{Conflicts, OnConflict},
            requests::Ticket,
            waiters::Awaited,
        },
    },
    provider::memory::Memory,
    record::Revision,
};

/// A flusher whose task does not run by itself.
fn flusher() -> Flusher<u32, Forever> {
    flusher_with(Options::default())
}

fn flusher_with(options: Options) -> Flusher<u32, Forever> {
    let clock = Arc::new(MapClock::new(Arc::new(SystemClock::new())));
    let name = "map".try_into().unwrap();
    let shared = Shared::new(name, Arc::new(Memory::new()), options, clock);
    let core = Core::new(shared, Forever, Conflicts::new(OnConflict::LastWrite));
    let loaded = Loaded {
        horizon: Revision::ZERO,
        incarnation: None,
        copied_at: None,
    };
    Flusher::new(Arc::new(core), loaded)
}

fn insert_and_wait(core: &Core<u32, Forever>, key: &str, value: u32) -> Ticket {
    let put = core.alter(key, |entry| {
        entry.put(value, None);
        entry.wait()
    });
    put.unwrap()
}

fn clear_and_wait(core: &Core<u32, Forever>) -> Ticket {
    let mut ticket = Ticket::done();
    core.clear(|| ticket = core.await_save(Awaited::Clear))
        .unwrap();
    ticket
}

/// A `clear_and_save` that came after the flusher checked for a clear, but before
/// it collected the waiting callers, was acknowledged too early: by a batch
/// without a clear, or without any batch.
#[tokio::test]
async fn a_clear_is_not_answered_by_a_draft_without_it() {
    let mut flusher = flusher();
    let mut until = flusher.core.queue.watermark();
    let mut draft = flusher.core.draft();
    let mut ticket = Box::pin(clear_and_wait(&flusher.core).wait());
    assert!(flusher.fill(&mut draft, &mut until, true).is_err());
    flusher.core.give_back(draft.waiters);
    let assembled = flusher.assemble(&mut until, true).unwrap();
    assert!(assembled.clears());
    assert!(futures_util::poll!(&mut ticket).is_pending());
    assembled.waiters.answer(&Ok(()));
    assert!(ticket.await.is_ok());
}

/// Two saves of one key shared a commit; a write between the flusher's two looks at
/// the entry put the key into the batch twice. A provider may apply a batch in any
/// order, and Postgres rejects such a batch.
#[tokio::test]
async fn a_key_with_several_waiting_callers_is_in_a_batch_once() {
    let mut flusher = flusher();
    let _first = insert_and_wait(&flusher.core, "a", 1);
    let _second = insert_and_wait(&flusher.core, "a", 2);
    let (key, mut first) = flusher.core.requests.lock().saves.pop().unwrap();
    let second = first.split_off(1);
    let mut until = flusher.core.queue.watermark();
    let mut draft = flusher.core.draft();
    for waiters in [first, second] {
        assert_eq!(waiters.len(), 1);
        let added = flusher.add_awaited(&mut draft, &key, waiters, &mut until);
        assert!(added.is_ok());
        flusher.core.alter("a", |entry| entry.put(3, None)).unwrap();
    }
    assert_eq!(draft.changes.len(), 1);
    // The second one may wait for the write in between.
    assert_eq!(draft.waiters.take("a").len(), 1);
    assert_eq!(flusher.core.requests.lock().saves.take("a").len(), 1);
    assert_eq!(flusher.core.pending(), 1);
    let assembled = flusher.finish(draft);
    let committed = Committed::at(Revision::new(1));
    flusher.core.settle_all(&assembled, &committed);
    // The write in between is still to be saved.
    let mut until = flusher.core.queue.watermark();
    let next = flusher.assemble(&mut until, true).unwrap();
    assert_eq!(next.changes().len(), 1);
}

/// A clear during the halving of a refused batch dropped the callers that waited
/// for the rest of the half: their saves failed as if the runtime had shut down.
#[tokio::test]
async fn a_clear_while_a_batch_is_halved_keeps_all_waiting_callers() {
    let mut flusher = flusher();
    let first = insert_and_wait(&flusher.core, "a", 1);
    let second = insert_and_wait(&flusher.core, "a", 2);
    let mut draft = flusher.core.draft();
    flusher.core.clear(|| {}).unwrap();
    let mut until = flusher.core.queue.watermark();
    let part = vec!["a".into()];
    let filled = flusher.fill_with_part(&mut draft, part, &mut until);
    assert!(filled.is_err());
    flusher.core.give_back(draft.waiters);
    let mut until = flusher.core.queue.watermark();
    let assembled = flusher.assemble(&mut until, true).unwrap();
    assembled.waiters.answer(&Ok(()));
    assert!(first.wait().await.is_ok());
    assert!(second.wait().await.is_ok());
}

fn put(core: &Core<u32, Forever>, key: &str, value: u32) {
    core.alter(key, |entry| entry.put(value, None)).unwrap();
}

#[test]
fn changes_that_exceed_a_batch_wait_in_order() {
    let mut flusher = flusher_with(Options {
        max_batch_bytes: 4,
        ..Options::default()
    });
    for key in ["a", "b", "c", "d", "e"] {
        put(&flusher.core, key, 1);
    }
    let mut until = flusher.core.queue.watermark();
    let mut batches: Vec<Vec<String>> = Vec::new();
    while let Some(assembled) = flusher.assemble(&mut until, false) {
        assert_eq!(flusher.core.pending(), 5 - batches.concat().len());
        let keys = assembled.changes().iter().map(|c| c.key.to_string());
        batches.push(keys.collect());
        let committed = Committed::at(Revision::new(1));
        flusher.core.settle_all(&assembled, &committed);
    }
    assert_eq!(batches, [&["a", "b"][..], &["c", "d"], &["e"]]);
    assert_eq!(flusher.core.pending(), 0);
}

#[test]
fn an_entry_removed_and_inserted_while_popped_leaves_nothing_in_the_queue() {
    let flusher = flusher();
    put(&flusher.core, "a", 1);
    let mut until = flusher.core.queue.watermark();
    let keys = flusher.core.queue.pop(&mut until, 10);
    flusher.core.alter("a", |entry| entry.remove()).unwrap();
    put(&flusher.core, "a", 2);
    let mut draft = flusher.core.draft();
    assert!(flusher.core.add_all(&mut draft, &keys, &mut until).is_ok());
    assert_eq!(draft.changes.len(), 1);
    assert_eq!(flusher.core.queue.len(), 0);
    assert_eq!(flusher.core.pending(), 1);
}

/// A value that a caller waited for could not be expressed as JSON and was replaced
/// at that moment. The new value was queued in front, and a flush that had passed
/// the front of the queue missed it.
#[test]
fn the_replacement_of_an_unwritable_value_is_not_left_for_later() {
    let mut flusher = flusher();
    let key: Arc<str> = "a".into();
    put(&flusher.core, "a", 1);
    let mut until = flusher.core.queue.watermark();
    let mut draft = flusher.core.draft();
    let keys = std::slice::from_ref(&key);
    flusher.core.reserve_all(keys, draft.generation);
    assert!(flusher.core.queue.pop(&mut until, 10).is_empty());
    put(&flusher.core, "a", 2);
    let error = Error::new(ErrorKind::Refused, "no JSON");
    flusher.core.refuse(&key, &error, false);
    let taken = Candidate::Unwritable(error);
    let added = draft.add(&key, taken, &mut until);
    assert!(added.is_ok());
    let next = flusher.assemble(&mut until, false).unwrap();
    assert_eq!(next.changes().len(), 1);
}

/// Takes everything that is queued now, as during a commit.
async fn take_ahead(flusher: &mut Flusher<u32, Forever>) -> Watermark {
    let core = flusher.core.clone();
    let mut until = core.queue.watermark();
    let mut taking = Box::pin(core.draft_ahead(&mut until, &mut flusher.ahead));
    while core.queue.len() > 0 {
        assert!(futures_util::poll!(&mut taking).is_pending());
    }
    drop(taking);
    until
}

fn keys(batch: &DirtyBatch) -> Vec<String> {
    let keys = batch.changes().iter().map(|change| change.key.to_string());
    keys.collect()
}

#[tokio::test]
async fn changes_taken_ahead_are_the_next_batch() {
    let mut flusher = flusher();
    put(&flusher.core, "a", 1);
    put(&flusher.core, "b", 1);
    let mut until = take_ahead(&mut flusher).await;
    assert_eq!(flusher.core.pending(), 2);
    let waiting = insert_and_wait(&flusher.core, "c", 1);
    let assembled = flusher.assemble(&mut until, false).unwrap();
    assert_eq!(keys(&assembled), ["a", "b", "c"]);
    assembled.waiters.answer(&Ok(()));
    assert!(waiting.wait().await.is_ok());
    assert!(flusher.assemble(&mut until, false).is_none());
}

/// The batch holds the older value: a save of the newer one must not be answered by it.
#[tokio::test]
async fn a_save_after_its_key_was_taken_ahead_waits_for_the_batch_after() {
    let mut flusher = flusher();
    put(&flusher.core, "a", 1);
    let mut until = take_ahead(&mut flusher).await;
    let mut waiting = Box::pin(insert_and_wait(&flusher.core, "a", 2).wait());
    for is_saved in [false, true] {
        let assembled = flusher.assemble(&mut until, false).unwrap();
        assert_eq!(keys(&assembled), ["a"]);
        let committed = Committed::at(Revision::new(1));
        flusher.core.settle_all(&assembled, &committed);
        assembled.waiters.answer(&Ok(()));
        assert_eq!(futures_util::poll!(&mut waiting).is_ready(), is_saved);
        until = flusher.core.queue.watermark();
    }
}

#[tokio::test]
async fn changes_taken_ahead_are_put_back_in_order_when_the_commit_fails() {
    let mut flusher = flusher();
    for key in ["a", "b", "c"] {
        put(&flusher.core, key, 1);
    }
    let mut until = take_ahead(&mut flusher).await;
    put(&flusher.core, "b", 2);
    put(&flusher.core, "d", 1);
    flusher.put_back_ahead(&mut until);
    let mut until = flusher.core.queue.watermark();
    let assembled = flusher.assemble(&mut until, false).unwrap();
    assert_eq!(keys(&assembled), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_clear_discards_the_changes_taken_ahead() {
    let mut flusher = flusher();
    put(&flusher.core, "a", 1);
    let mut until = take_ahead(&mut flusher).await;
    flusher.core.clear(|| {}).unwrap();
    let assembled = flusher.assemble(&mut until, false).unwrap();
    assert!(assembled.clears());
    assert!(assembled.changes().is_empty());
}

/// Each part of a refused batch reserved room for everything pending: refusing n
/// changes one by one was O(n²).
#[test]
fn a_part_reserves_room_for_itself_only() {
    let mut flusher = flusher();
    for n in 0..10_000 {
        put(&flusher.core, &n.to_string(), 1);
    }
    flusher.parts.push(vec!["7".into()]);
    let mut until = flusher.core.queue.watermark();
    let assembled = flusher.assemble(&mut until, false).unwrap();
    let changes = &assembled.batch.maps[0].changes;
    assert_eq!(changes.len(), 1);
    assert!(changes.capacity() < 100, "{}", changes.capacity());
}

/// A map from which nearly all entries had been removed, or had expired, kept the
/// memory of its largest size.
#[test]
fn a_map_that_was_much_fuller_frees_its_memory() {
    let mut flusher = flusher();
    let commit_all = |flusher: &mut Flusher<u32, Forever>| {
        let mut until = flusher.core.queue.watermark();
        while let Some(assembled) = flusher.assemble(&mut until, false) {
            let committed = Committed::at(Revision::new(1));
            flusher.core.settle_all(&assembled, &committed);
        }
    };
    for n in 0..100_000 {
        put(&flusher.core, &n.to_string(), 1);
    }
    commit_all(&mut flusher);
    let full = flusher.core.shards.room();
    for n in 1_000..100_000 {
        let remove = |entry: &mut LockedEntry<'_, _, _>| entry.remove();
        flusher.core.alter(&n.to_string(), remove).unwrap();
    }
    commit_all(&mut flusher);
    assert!(flusher.core.shards.room() <= full / 4, "of {full}");
    assert_eq!(flusher.core.len(), 1_000);
    assert_eq!(flusher.core.look("7", |value| *value), Some(1));
}

/// While the changes of a failed commit were queued again, there was a moment at which nothing
/// seemed to be pending.
#[test]
fn a_change_that_is_taken_and_put_back_is_pending_all_the_time() {
    let core = flusher().core.clone();
    put(&core, "a", 1);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..2_000 {
                let is_popped = n % 2 == 0;
                let popped = is_popped.then(|| core.queue.pop(&mut core.queue.watermark(), 1));
                core.take(&"a".into(), 0);
                core.queue.seen(popped.map_or(0, |keys| keys.len()));
                core.requeue(&"a".into(), false);
            }
            is_done.store(true, SeqCst);
        });
        while !is_done.load(SeqCst) {
            assert!(core.pending() > 0);
        }
    });
}
