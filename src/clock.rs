//! The one clock: what time it is, and waiting for a time to come.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

/// Tells the time and waits. A map asks no other clock.
///
/// The time never goes back while the clock lives.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// What time it is.
    fn now(&self) -> SystemTime;

    /// Waits until that time has come; returns at once if it has.
    fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()>;
}

/// The machine's clock: the wall time when it was made, and from then on the
/// time that has passed, so that nobody who sets the wall clock meanwhile
/// makes entries expire or live longer.
///
/// It runs on tokio's time: a test that pauses it pauses this clock.
#[derive(Clone, Debug)]
pub struct SystemClock {
    anchor: SystemTime,
    since: Instant,
}

impl SystemClock {
    /// A clock that starts at the machine's wall time.
    pub fn new() -> Self {
        Self {
            anchor: SystemTime::now(),
            since: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        self.anchor + self.since.elapsed()
    }

    fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()> {
        let wait = deadline.duration_since(self.now()).unwrap_or_default();
        Box::pin(tokio::time::sleep(wait))
    }
}

/// A map's clock: another clock, set ahead so that it never reads less than the
/// latest time its store has seen. Otherwise entries would come back to life on
/// a machine whose clock was set back.
#[derive(Debug)]
pub struct MapClock {
    clock: Arc<dyn Clock>,
    /// Nanoseconds; it only grows.
    ahead: AtomicU64,
}

impl MapClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            ahead: AtomicU64::new(0),
        }
    }

    /// The store has seen that time: it is not earlier now.
    pub(crate) fn observe(&self, seen: SystemTime) {
        let ahead = seen.duration_since(self.clock.now()).unwrap_or_default();
        let nanos = u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX);
        self.ahead.fetch_max(nanos, Relaxed);
    }

    fn ahead(&self) -> Duration {
        Duration::from_nanos(self.ahead.load(Relaxed))
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now() + self.ahead()
    }

    pub(crate) fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()> {
        let deadline = deadline.checked_sub(self.ahead());
        // Before the beginning of time means that it has come.
        self.clock
            .sleep_until(deadline.unwrap_or(SystemTime::UNIX_EPOCH))
    }

    pub(crate) fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        match self.clock.now().checked_add(wait) {
            Some(deadline) => self.clock.sleep_until(deadline),
            // A wait beyond the end of time never ends.
            None => Box::pin(std::future::pending()),
        }
    }
}
