//! The deadlines of a map, shared by writers and the sweeper.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

use super::deadlines::{Deadlines, Millis};

/// The number of lanes that keys are spread over, so that writers seldom wait for each
/// other.
const LANES: usize = 16;

/// The deadlines of a map, and a notification when a new one is the earliest of its lane.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    lanes: [CachePadded<Mutex<Deadlines>>; LANES],
    moved: Notify,
    ended: AtomicBool,
}

impl Schedule {
    pub(crate) fn shift(&self, key: &Arc<str>, from: Millis, to: Millis) {
        if from == to {
            return;
        }
        let hash = xxh3_64(key.as_bytes());
        let lane = usize::from(hash.to_le_bytes()[0]) % LANES;
        if self.lanes[lane].lock().shift(hash, key, from, to) {
            self.moved.notify_one();
        }
    }

    /// Empties the schedule and returns it. Dropping it is slow, so do it outside
    /// the locks.
    pub(crate) fn take_all(&self) -> Vec<Deadlines> {
        let lanes = self.lanes.iter();
        lanes
            .map(|lane| std::mem::take(&mut *lane.lock()))
            .collect()
    }

    /// Ends the schedule, and wakes the sweeper: the map was dropped.
    pub(crate) fn end(&self) {
        self.ended.store(true, SeqCst);
        self.moved.notify_one();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(SeqCst)
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Millis> {
        self.lanes
            .iter()
            .filter_map(|lane| lane.lock().next())
            .min()
    }

    /// Waits until a new deadline is the earliest, or the schedule has ended.
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.lock().len()).sum()
    }

    /// Removes about `max` keys whose deadline has passed, and returns them in the order
    /// of their deadlines.
    pub(crate) fn due(&self, now: Millis, max: usize) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        for lane in &self.lanes {
            let mut lane = lane.lock();
            let of_lane = std::iter::from_fn(|| lane.pop_due(now));
            due.extend(of_lane.take(max.div_ceil(LANES)));
        }
        due.sort();
        due.into_iter().map(|(_, key)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::deadlines::NEVER;

    /// A clear used to drop a million deadlines while the whole map was locked,
    /// which blocked every other call.
    #[test]
    fn a_cleared_schedule_is_returned_whole_to_be_dropped_later() {
        let schedule = Schedule::default();
        for n in 1..=1_000 {
            schedule.shift(&n.to_string().into(), NEVER, n);
        }
        let taken = schedule.take_all();
        let taken: usize = taken.iter().map(Deadlines::len).sum();
        assert_eq!((taken, schedule.len()), (1_000, 0));
        assert_eq!(schedule.next(), None);
    }
}
