//! The one clock: what time it is, and waiting for a time to come.

use std::{
    fmt,
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

/// A clock that is ahead of another by a fixed time: a map's clock never reads
/// less than the latest time its store has seen, or entries would come back to
/// life on a machine whose clock was set back.
#[derive(Debug)]
pub(crate) struct Ahead<C: ?Sized> {
    by: Duration,
    clock: std::sync::Arc<C>,
}

impl<C: Clock + ?Sized> Ahead<C> {
    /// The same time, but at least `seen` now.
    pub(crate) fn of(clock: std::sync::Arc<C>, seen: SystemTime) -> Self {
        let by = seen.duration_since(clock.now()).unwrap_or_default();
        Self { by, clock }
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now() + self.by
    }

    pub(crate) fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()> {
        // Before 1970 there is no time to subtract from; then it has come.
        let deadline = deadline.checked_sub(self.by);
        self.clock
            .sleep_until(deadline.unwrap_or(SystemTime::UNIX_EPOCH))
    }

    pub(crate) fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        let deadline = self.clock.now().checked_add(wait);
        // A wait that ends after the end of time never ends.
        match deadline {
            Some(deadline) => self.clock.sleep_until(deadline),
            None => Box::pin(std::future::pending()),
        }
    }
}
