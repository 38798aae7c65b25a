//! The one clock: what time it is, and waiting for a time to come.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
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

/// How far the store's time may be ahead of the clock. Clocks that are set by
/// hand, from a wrong time zone, or back from summer time, are off by less than a
/// day. A longer way off, the time was wrong when the store saw it (or is now):
/// to wait until it comes would keep entries alive for years.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// A map's clock: another clock, set ahead so that it never reads less than the
/// latest time its store has seen. Otherwise entries would come back to life on
/// a machine whose clock was set back.
///
/// A time that is further ahead than [a day](MAX_AHEAD) is a glitch, and does not
/// count. Nothing ever sets this clock back: what has expired by it stays so.
#[derive(Debug)]
pub struct MapClock {
    clock: Arc<dyn Clock>,
    /// Nanoseconds; it only grows.
    ahead: AtomicU64,
    has_met_a_glitch: AtomicBool,
}

/// What a map's clock makes of a time that the store has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is not earlier now.
    Counts,
    /// The clock was wrong when it was written.
    Glitch {
        /// No other was met before.
        is_first: bool,
    },
}

impl MapClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            ahead: AtomicU64::new(0),
            has_met_a_glitch: AtomicBool::new(false),
        }
    }

    /// The store has seen that time.
    pub(crate) fn observe(&self, seen: SystemTime) -> Seen {
        if self.is_glitch(seen) {
            let is_first = !self.has_met_a_glitch.swap(true, Relaxed);
            return Seen::Glitch { is_first };
        }
        let nanos = u64::try_from(self.ahead_by(seen).as_nanos()).unwrap_or(u64::MAX);
        self.ahead.fetch_max(nanos, Relaxed);
        Seen::Counts
    }

    /// Whether that time is too far ahead to be believed.
    pub(crate) fn is_glitch(&self, seen: SystemTime) -> bool {
        self.ahead_by(seen) > MAX_AHEAD
    }

    fn ahead_by(&self, seen: SystemTime) -> Duration {
        seen.duration_since(self.clock.now()).unwrap_or_default()
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
