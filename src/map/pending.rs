//! The queue of keys that wait to be saved.
//!
//! # Why no change is lost
//!
//! - A key is queued in the same critical section (its shard's write lock) that
//!   changes the value and marks the entry, and only if it was not queued
//!   already. So a mark that says *queued* means that the key is in the queue,
//!   or in the hands of the flusher, who has popped it and not yet looked at
//!   the entry.
//! - The flusher looks at the entry after it popped the key. Whatever was
//!   written before that look is in what it reads; whatever is written after
//!   finds the mark at *saving* and queues the key again.
//! - When a commit returns, only an entry that is still at *saving* becomes
//!   clean. One that was queued again stays so.
//! - When a commit fails, what is at *saving* is queued again, in front.
//!
//! Keys leave in the order in which they came (by thread), so a key that is
//! written to all the time cannot keep another one waiting.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use slab::Slab;

/// Threads are spread over so many lanes, which are locked one by one.
const LANE_COUNT: u32 = 16;
const LANES: usize = LANE_COUNT as usize;
const NONE: u32 = u32::MAX;
/// An empty lane gives back a table larger than this many keys.
const KEPT: usize = 1_024;

/// The keys that wait to be saved, each once.
pub(super) struct Pending {
    lanes: [CachePadded<Mutex<Lane>>; LANES],
    /// How many keys are in all lanes; changed with the lane locked.
    queued: AtomicUsize,
}

/// What was queued before some moment, and how far it was popped.
pub(super) struct Until {
    ends: [u64; LANES],
    /// The lanes before this one have nothing left from before that moment.
    lane: usize,
    /// Something from before that moment may be on no way yet: then a clear that
    /// takes it out of the queue has to be saved in its place.
    pub(super) left: bool,
}

impl Until {
    /// Looks at all lanes again, after keys were put back in front.
    pub(super) fn rewind(&mut self) {
        self.lane = 0;
        self.left = true;
    }
}

#[derive(Default)]
struct Lane {
    nodes: Slab<Node>,
    ends: Option<Ends>,
    /// How many keys were ever pushed at the back.
    pushed: u64,
}

#[derive(Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

/// A key in its lane. Linked both ways, so that a key can leave from the
/// middle: an entry that is inserted and removed while the store is down leaves
/// nothing behind.
struct Node {
    key: Arc<str>,
    turn: u64,
    before: u32,
    after: u32,
}

thread_local! {
    static LANE: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The lane of this thread: threads take turns in choosing one.
fn lane_here() -> u32 {
    static THREADS: AtomicU32 = AtomicU32::new(0);
    LANE.get().unwrap_or_else(|| {
        let lane = THREADS.fetch_add(1, Relaxed) % LANE_COUNT;
        LANE.set(Some(lane));
        lane
    })
}

impl Pending {
    pub(super) fn new() -> Self {
        Self {
            lanes: std::array::from_fn(|_| CachePadded::default()),
            queued: AtomicUsize::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queued.load(Relaxed)
    }

    /// Queues a key at the back; returns its place, and how many are queued now.
    #[inline]
    pub(super) fn push(&self, key: Arc<str>) -> (u32, usize) {
        let number = lane_here();
        let mut lane = self.lanes[number as usize].lock();
        let spot = lane.push_back(key);
        (place(number, spot), self.queued.fetch_add(1, Relaxed) + 1)
    }

    /// Queues a key in front of all others: it has waited its turn before.
    pub(super) fn push_front(&self, key: Arc<str>) -> u32 {
        let number = lane_here();
        let mut lane = self.lanes[number as usize].lock();
        let spot = lane.push_front(key);
        self.queued.fetch_add(1, Relaxed);
        place(number, spot)
    }

    /// Takes this key out of the queue, if it is (still) in that place.
    pub(super) fn unlink(&self, at: u32, key: &Arc<str>) {
        let mut lane = self.lanes[at as usize % LANES].lock();
        if lane.unlink(at / LANE_COUNT, key) {
            self.queued.fetch_sub(1, Relaxed);
        }
    }

    /// Where the lanes end now.
    pub(super) fn until_now(&self) -> Until {
        Until {
            ends: std::array::from_fn(|n| self.lanes[n].lock().pushed),
            lane: 0,
            left: true,
        }
    }

    /// The next key that was queued before then.
    pub(super) fn pop(&self, until: &mut Until) -> Option<Arc<str>> {
        while let Some(lane) = self.lanes.get(until.lane) {
            if let Some(key) = lane.lock().pop(until.ends[until.lane]) {
                self.queued.fetch_sub(1, Relaxed);
                return Some(key);
            }
            until.lane += 1;
        }
        None
    }

    /// Whether something is left of what was queued before then.
    pub(super) fn has(&self, until: &Until) -> bool {
        let lanes = self.lanes.iter().zip(&until.ends).skip(until.lane);
        lanes.into_iter().any(|(lane, end)| lane.lock().has(*end))
    }

    /// Empties the queue. Only while no entry can be marked.
    pub(super) fn clear(&self) {
        for lane in &self.lanes {
            let mut lane = lane.lock();
            let pushed = lane.pushed;
            self.queued.fetch_sub(lane.nodes.len(), Relaxed);
            *lane = Lane {
                pushed,
                ..Lane::default()
            };
        }
    }
}

/// A place in the queue: the lane in the lowest bits, the spot above.
fn place(lane: u32, spot: u32) -> u32 {
    spot * LANE_COUNT + lane
}

impl Lane {
    fn push_back(&mut self, key: Arc<str>) -> u32 {
        self.pushed += 1;
        let before = self.ends.map_or(NONE, |ends| ends.last);
        let node = Node {
            key,
            turn: self.pushed,
            before,
            after: NONE,
        };
        let spot = self.insert(node);
        match &mut self.ends {
            Some(ends) => {
                let old = std::mem::replace(&mut ends.last, spot);
                self.nodes[old as usize].after = spot;
            }
            None => self.ends = Some(Ends::both(spot)),
        }
        spot
    }

    fn push_front(&mut self, key: Arc<str>) -> u32 {
        let after = self.ends.map_or(NONE, |ends| ends.first);
        let node = Node {
            key,
            turn: 0,
            before: NONE,
            after,
        };
        let spot = self.insert(node);
        match &mut self.ends {
            Some(ends) => {
                let old = std::mem::replace(&mut ends.first, spot);
                self.nodes[old as usize].before = spot;
            }
            None => self.ends = Some(Ends::both(spot)),
        }
        spot
    }

    fn insert(&mut self, node: Node) -> u32 {
        let spot = self.nodes.insert(node);
        // 268 million keys a lane: 4 GiB of keys in the queue alone. Beyond
        // that the place would not fit, and a wrong one would lose a change.
        let fits = u32::try_from(spot).ok().filter(|s| *s < NONE / LANE_COUNT);
        fits.unwrap_or_else(|| panic!("more than {} keys are pending", NONE / LANE_COUNT))
    }

    fn has(&self, until: u64) -> bool {
        self.ends
            .is_some_and(|ends| self.nodes[ends.first as usize].turn <= until)
    }

    fn pop(&mut self, until: u64) -> Option<Arc<str>> {
        let first = self.ends.filter(|_| self.has(until))?.first;
        Some(self.remove(first).key)
    }

    /// Whether the key was there. A spot may have been popped, and be another
    /// key's by now; the same allocation of the key says that it was not.
    fn unlink(&mut self, spot: u32, key: &Arc<str>) -> bool {
        let there = self.nodes.get(spot as usize);
        let is_there = there.is_some_and(|node| Arc::ptr_eq(&node.key, key));
        if is_there {
            self.remove(spot);
        }
        is_there
    }

    fn remove(&mut self, spot: u32) -> Node {
        let node = self.nodes.remove(spot as usize);
        if let Some(before) = self.nodes.get_mut(node.before as usize) {
            before.after = node.after;
        }
        if let Some(after) = self.nodes.get_mut(node.after as usize) {
            after.before = node.before;
        }
        self.ends = self.ends.and_then(|ends| ends.without(spot, &node));
        if self.nodes.is_empty() && self.nodes.capacity() > KEPT {
            self.nodes = Slab::new();
        }
        node
    }
}

impl Ends {
    fn both(spot: u32) -> Self {
        Self {
            first: spot,
            last: spot,
        }
    }

    fn without(self, spot: u32, node: &Node) -> Option<Self> {
        let first = if self.first == spot {
            node.after
        } else {
            self.first
        };
        let last = if self.last == spot {
            node.before
        } else {
            self.last
        };
        (first != NONE && last != NONE).then_some(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pending: &Pending, mut until: Until) -> Vec<String> {
        std::iter::from_fn(|| pending.pop(&mut until))
            .map(|key| key.to_string())
            .collect()
    }

    #[test]
    fn keys_leave_in_order_and_a_requeued_one_leaves_first() {
        let pending = Pending::new();
        for key in ["a", "b", "c"] {
            pending.push(key.into());
        }
        let until = pending.until_now();
        pending.push("late".into());
        pending.push_front("again".into());
        assert_eq!(keys(&pending, until), ["again", "a", "b", "c"]);
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn a_key_leaves_from_the_middle_and_only_itself() {
        let pending = Pending::new();
        let key: Arc<str> = "b".into();
        pending.push("a".into());
        let (at, queued) = pending.push(key.clone());
        pending.push("c".into());
        assert_eq!(queued, 2);
        pending.unlink(at, &key);
        pending.unlink(at, &key);
        let (again, _) = pending.push("d".into());
        assert_eq!(again, at, "the spot is used again");
        pending.unlink(at, &key);
        assert_eq!(keys(&pending, pending.until_now()), ["a", "c", "d"]);
        assert_eq!(pending.len(), 0);
    }
}
