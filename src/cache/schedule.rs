//! The deadlines of a map, shared by writers and the sweeper.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::deadlines::{Deadlines, Millis};

/// The deadlines of a map, and a notification when a new one is the earliest.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    deadlines: Mutex<Deadlines>,
    moved: Notify,
    ended: AtomicBool,
}

impl Schedule {
    pub(crate) fn shift(&self, key: &Arc<str>, from: Millis, to: Millis) {
        if from != to && self.deadlines.lock().shift(key, from, to) {
            self.moved.notify_one();
        }
    }

    /// Empties the schedule and returns it. Dropping it is slow, so do it outside
    /// the locks.
    pub(crate) fn take_all(&self) -> Deadlines {
        std::mem::take(&mut *self.deadlines.lock())
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
        self.deadlines.lock().next()
    }

    /// Waits until a new deadline is the earliest, or the schedule has ended.
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.deadlines.lock().len()
    }

    /// Removes up to `max` keys whose deadline has passed.
    pub(crate) fn due(&self, now: Millis, max: usize) -> Vec<Arc<str>> {
        let mut deadlines = self.deadlines.lock();
        let due = std::iter::from_fn(|| deadlines.pop_due(now));
        due.take(max).collect()
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
        assert_eq!((taken.len(), schedule.len()), (1_000, 0));
        assert_eq!(schedule.next(), None);
    }
}
