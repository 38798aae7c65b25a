//! A clock that a test advances.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::clock::Clock;

/// A clock that stands still until it is advanced. Advancing it wakes the tasks that
/// sleep on it. Clones share the time.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use persistify::{Clock, testing::ManualClock};
///
/// let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: Arc<watch::Sender<SystemTime>>,
}

impl ManualClock {
    /// Creates a clock that stands at `start`.
    pub fn new(start: SystemTime) -> Self {
        Self {
            now: Arc::new(watch::Sender::new(start)),
        }
    }

    /// Advances the clock by a duration.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now += by);
    }

    /// Advances the clock to `time`. A `time` in the past has no effect.
    pub fn advance_to(&self, time: SystemTime) {
        self.now.send_modify(|now| *now = time.max(*now));
    }
}

/// Starts at the wall time of the machine.
impl Default for ManualClock {
    fn default() -> Self {
        Self::new(SystemTime::now())
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.now.borrow()
    }

    fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()> {
        let clock = Arc::clone(&self.now);
        Box::pin(async move {
            let mut now = clock.subscribe();
            // It cannot fail: the sender lives in this future.
            let _ = now.wait_for(|now| *now >= deadline).await;
        })
    }
}
