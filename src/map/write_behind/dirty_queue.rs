//! The dirty queue: the keys that wait to be saved.
//!
//! # Why no change is lost
//!
//! - A key is queued in the same critical section (its shard's write lock) that
//!   changes the value and marks the entry, and only if it was not queued already.
//!   So a mark *queued* means that the key is in the queue, or has been popped by
//!   the flusher, which has not yet looked at the entry.
//! - The flusher looks at the entry after it popped the key. It reads everything
//!   written before that look. A write after it finds the mark *saving* and queues
//!   the key again.
//! - The flusher pops and looks at many keys at once; keys that do not fit into the
//!   batch are queued again, in front.
//! - When a commit succeeds, only entries still marked *saving* become clean. An
//!   entry that was queued again stays queued.
//! - When a commit fails, entries marked *saving* are queued again, in front.
//!
//! Keys leave in the order in which they came (per thread), so a key that is
//! written all the time cannot starve another.

mod counts;
mod lane;

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

pub(crate) use self::lane::Lane;
use self::{counts::Counts, lane::MAX_KEYS};

/// The number of lanes that threads are spread over. Lanes are locked one at a
/// time.
const LANE_COUNT: u32 = 16;
const LANES: usize = LANE_COUNT as usize;
// A place combines an index in a lane with the lane's number.
const _: () = assert!(MAX_KEYS - 1 <= u32::MAX / LANE_COUNT);
/// How many keys are popped from a lane under one lock; writers wait for it.
const RUN: usize = 16;

/// The keys that wait to be saved, each once.
pub(crate) struct DirtyQueue {
    lanes: [CachePadded<Mutex<Lane>>; LANES],
    /// Popped keys count as queued until they were looked at.
    pub(crate) counts: Counts,
}

/// The end of the queue at some moment, and how far it was popped since.
pub(crate) struct Watermark {
    ends: [u64; LANES],
    /// Lanes before this one have no keys left from before that moment.
    lane: usize,
    /// The generation of the last clear when the queue was found empty. Keys that
    /// the flusher did not take by then were removed by a clear up to this one,
    /// which replaces them.
    pub(crate) emptied: Option<u64>,
}

impl Watermark {
    /// A watermark that accepts only keys put back in front, not keys waiting for
    /// their first turn.
    pub(crate) fn beginning() -> Self {
        Self {
            ends: [0; LANES],
            lane: 0,
            emptied: None,
        }
    }

    /// Starts over with the first lane, after keys were put back in front.
    pub(crate) fn rewind(&mut self) {
        self.lane = 0;
        self.emptied = None;
    }
}

thread_local! {
    static LANE: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The lane of this thread; threads are assigned round-robin.
fn lane_here() -> u32 {
    static THREADS: AtomicU32 = AtomicU32::new(0);
    LANE.get().unwrap_or_else(|| {
        let lane = THREADS.fetch_add(1, Relaxed) % LANE_COUNT;
        LANE.set(Some(lane));
        lane
    })
}

impl DirtyQueue {
    pub(crate) fn new() -> Self {
        Self {
            lanes: std::array::from_fn(|_| CachePadded::default()),
            counts: Counts::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.counts.queued()
    }

    /// Queues a key at the back; returns its place, and the number of queued keys.
    #[inline]
    pub(crate) fn push(&self, key: Arc<str>) -> (u32, usize) {
        let number = lane_here();
        let mut lane = self.lanes[number as usize].lock();
        let index = lane.push_back(key);
        (place(number, index), self.counts.add_queued())
    }

    /// Queues a key in front of all others, because it has waited before.
    pub(crate) fn push_front(&self, key: Arc<str>) -> u32 {
        let number = lane_here();
        let mut lane = self.lanes[number as usize].lock();
        let index = lane.push_front(key);
        self.counts.add_queued();
        place(number, index)
    }

    /// Removes this key from the queue, if it is still at that place.
    pub(crate) fn unlink(&self, at: u32, key: &Arc<str>) {
        let mut lane = self.lanes[at as usize % LANES].lock();
        if lane.unlink(at / LANE_COUNT, key) {
            self.counts.remove_queued(1);
        }
    }

    /// Like [`unlink`](Self::unlink) for several keys.
    pub(crate) fn unlink_all<'k>(&self, keys: impl Iterator<Item = (u32, &'k Arc<str>)>) {
        let mut held: Option<(u32, MutexGuard<'_, Lane>)> = None;
        let mut unlinked = 0;
        for (at, key) in keys {
            let number = at % LANE_COUNT;
            // One lane at a time; usually all keys are in the same lane.
            if held.as_ref().is_none_or(|(held, _)| *held != number) {
                drop(held.take());
                held = Some((number, self.lanes[number as usize].lock()));
            }
            let lane = held.as_mut().map(|(_, lane)| lane);
            unlinked += usize::from(lane.is_some_and(|lane| lane.unlink(at / LANE_COUNT, key)));
        }
        self.counts.remove_queued(unlinked);
    }

    /// The current end of the queue.
    pub(crate) fn watermark(&self) -> Watermark {
        Watermark {
            ends: std::array::from_fn(|n| self.lanes[n].lock().pushed),
            lane: 0,
            emptied: None,
        }
    }

    /// Pops up to `max` keys that were queued before the watermark; an empty result
    /// means that none is left. They count as queued until they are
    /// [`seen`](Self::seen): otherwise there would be a moment at which nothing
    /// seems to be pending.
    pub(crate) fn pop(&self, until: &mut Watermark, max: usize) -> Vec<Arc<str>> {
        let mut keys = Vec::new();
        while let Some(lane) = self.lanes.get(until.lane) {
            let end = until.ends[until.lane];
            let before = keys.len();
            let room = (max - before).min(RUN);
            let mut lane = lane.lock();
            keys.extend(std::iter::from_fn(|| lane.pop(end)).take(room));
            drop(lane);
            if keys.len() == max {
                break;
            }
            if keys.len() - before < room {
                until.lane += 1;
            }
        }
        keys
    }

    /// Records that the flusher has looked at this many popped keys.
    pub(crate) fn seen(&self, popped: usize) {
        self.counts.remove_queued(popped);
    }

    /// Whether keys are left from before the watermark.
    pub(crate) fn has(&self, until: &Watermark) -> bool {
        let lanes = self.lanes.iter().zip(&until.ends).skip(until.lane);
        lanes.into_iter().any(|(lane, end)| lane.lock().has(*end))
    }

    /// Empties the queue and returns its contents. Call only while no entry can be
    /// marked.
    pub(crate) fn take_all(&self) -> Vec<Lane> {
        let take = |lane: &CachePadded<Mutex<Lane>>| {
            let mut lane = lane.lock();
            self.counts.remove_queued(lane.len());
            let empty = Lane::after(lane.pushed);
            std::mem::replace(&mut *lane, empty)
        };
        self.lanes.iter().map(take).collect()
    }
}

/// A place in the queue: the lane in the lowest bits, the index above.
fn place(lane: u32, index: u32) -> u32 {
    index * LANE_COUNT + lane
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pending: &DirtyQueue, mut until: Watermark) -> Vec<String> {
        let keys = pending.pop(&mut until, usize::MAX);
        pending.seen(keys.len());
        keys.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn keys_leave_in_order_and_a_requeued_key_leaves_first() {
        let pending = DirtyQueue::new();
        for key in ["a", "b", "c"] {
            pending.push(key.into());
        }
        let until = pending.watermark();
        pending.push("late".into());
        pending.push_front("again".into());
        assert_eq!(keys(&pending, until), ["again", "a", "b", "c"]);
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn keys_that_are_queued_and_unlinked_do_not_make_the_queue_grow() {
        let pending = DirtyQueue::new();
        pending.push("stays".into());
        for n in 0..100_000 {
            let key: Arc<str> = n.to_string().into();
            let (at, _) = pending.push(key.clone());
            pending.unlink(at, &key);
        }
        assert_eq!(pending.len(), 1);
        let capacities = pending.lanes.iter().map(|lane| lane.lock().capacity());
        assert!(capacities.sum::<usize>() < 10);
    }

    #[test]
    fn unlinking_a_key_removes_only_that_key() {
        let pending = DirtyQueue::new();
        let key: Arc<str> = "b".into();
        pending.push("a".into());
        let (at, queued) = pending.push(key.clone());
        pending.push("c".into());
        assert_eq!(queued, 2);
        pending.unlink(at, &key);
        pending.unlink(at, &key);
        let (again, _) = pending.push("d".into());
        assert_eq!(again, at, "the entry is used again");
        pending.unlink(at, &key);
        assert_eq!(keys(&pending, pending.watermark()), ["a", "c", "d"]);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn keys_of_several_lanes_are_unlinked_together() {
        let pending = DirtyQueue::new();
        let keys: Vec<Arc<str>> = ["a", "b", "c", "d"].map(Arc::from).into();
        let push = |key: &Arc<str>| pending.push(key.clone()).0;
        // Each thread has its own lane.
        let places = keys
            .iter()
            .map(|key| std::thread::scope(|scope| scope.spawn(|| push(key)).join().unwrap()));
        let places: Vec<_> = places.collect();
        pending.unlink_all(places.into_iter().zip(&keys).skip(1));
        assert_eq!(pending.len(), 1);
        assert_eq!(self::keys(&pending, pending.watermark()), ["a"]);
    }
}
