//! Takes expired entries out of memory and store, at a cost that follows the
//! number of expiries.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    deadlines::{Deadlines, Millis, millis, time},
    lease::Expiring,
};
use crate::{clock::MapClock, map::Core};

/// How many keys are taken before others get their turn on the thread.
const BATCH: usize = 128;

/// The deadlines of a map, and a bell for when the next one has moved.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    deadlines: Mutex<Deadlines>,
    moved: Notify,
}

impl Schedule {
    pub(super) fn shift(&self, key: &Arc<str>, from: Millis, to: Millis) {
        if from != to && self.deadlines.lock().shift(key, from, to) {
            self.moved.notify_one();
        }
    }

    pub(super) fn clear(&self) {
        self.deadlines.lock().clear();
    }

    /// The map is gone: the sweeper may look, and leave.
    pub(super) fn end(&self) {
        self.moved.notify_one();
    }

    fn due(&self, now: Millis) -> Vec<Arc<str>> {
        let mut deadlines = self.deadlines.lock();
        std::iter::from_fn(|| deadlines.pop_due(now))
            .take(BATCH)
            .collect()
    }
}

/// Sleeps until the next deadline, sweeps, and ends with the map.
pub(super) async fn sweep<V: Send + Sync + 'static>(
    schedule: Arc<Schedule>,
    clock: Arc<MapClock>,
    core: Weak<Core<V, Expiring<V>>>,
) {
    loop {
        wait_for_next(&schedule, &clock).await;
        let Some(core) = core.upgrade() else { return };
        for key in schedule.due(millis(clock.now())) {
            // Whether it has really expired is decided under the entry's lock:
            // it may have been written or read meanwhile, and is then put back.
            if core.expire(&key).is_err() {
                return;
            }
        }
        drop(core);
        tokio::task::yield_now().await;
    }
}

async fn wait_for_next(schedule: &Schedule, clock: &MapClock) {
    let moved = schedule.moved.notified();
    let next = schedule.deadlines.lock().next();
    match next.and_then(time) {
        None => moved.await,
        Some(deadline) => tokio::select! {
            () = moved => {}
            () = clock.sleep_until(deadline) => {}
        },
    }
}
