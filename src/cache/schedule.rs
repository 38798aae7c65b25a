//! The deadlines of a map, shared by those who write and the one who sweeps.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::deadlines::{Deadlines, Millis};

/// The deadlines of a map, and a bell for when the next one has moved.
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

    /// Nothing is due any more; what was. To drop it takes its time.
    pub(crate) fn take_all(&self) -> Deadlines {
        std::mem::take(&mut *self.deadlines.lock())
    }

    /// The map is gone: nothing will be due any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, SeqCst);
        self.moved.notify_one();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(SeqCst)
    }

    /// The next deadline of all.
    pub(crate) fn next(&self) -> Option<Millis> {
        self.deadlines.lock().next()
    }

    /// Waits until the next deadline is another one.
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.deadlines.lock().len()
    }

    /// Takes out the keys whose deadline has come, so many at the most.
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

    /// A clear dropped a million deadlines while the whole map was locked, and all
    /// others stood still meanwhile.
    #[test]
    fn what_was_due_is_handed_out_whole_to_be_dropped_later() {
        let schedule = Schedule::default();
        for n in 1..=1_000 {
            schedule.shift(&n.to_string().into(), NEVER, n);
        }
        let taken = schedule.take_all();
        assert_eq!((taken.len(), schedule.len()), (1_000, 0));
        assert_eq!(schedule.next(), None);
    }
}
