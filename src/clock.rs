//! Clocks: the time, and timers.

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

/// A source of time and timers. A map uses no other clock than its own.
///
/// The time must not go backwards while the clock exists.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> SystemTime;

    /// Waits until `deadline`. Completes at once if `deadline` has passed.
    fn sleep_until(&self, deadline: SystemTime) -> BoxFuture<'static, ()>;
}

/// The clock of the machine; the default of a map.
///
/// It reads the wall clock once, when it is created, and then adds the monotonic
/// time that has passed. A later change of the wall clock therefore does not affect
/// expiries. It is based on [`tokio::time`], so a test that pauses tokio's time
/// pauses this clock.
#[derive(Clone, Debug)]
pub struct SystemClock {
    anchor: SystemTime,
    since: Instant,
}

impl SystemClock {
    /// Creates a clock that starts at the current wall time.
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

/// How far a stored time may be ahead of the clock. Manual settings, wrong time zones
/// and daylight saving time shift a clock by less than a day. A larger distance means
/// that the time was wrong when it was stored, or is wrong now; following it could
/// keep entries alive for years.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// The clock of a map: another clock, shifted so that it never reads less than the
/// latest time in the store. Otherwise expired entries would reappear on a machine
/// whose clock was set back.
///
/// A stored time more than [a day](MAX_AHEAD) ahead is a glitch and is ignored. The
/// shift only grows, so an expired entry stays expired.
#[derive(Debug)]
pub struct MapClock {
    clock: Arc<dyn Clock>,
    /// Nanoseconds; it only grows.
    ahead: AtomicU64,
    has_met_a_glitch: AtomicBool,
}

/// How a map's clock treats a stored time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The clock now reads at least this time.
    Counts,
    /// The time is ignored: the clock that wrote it was wrong.
    Glitch {
        /// Whether this is the first glitch of the map.
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

    /// Shifts the clock so that it reads at least `seen`, a time in the store.
    pub(crate) fn observe(&self, seen: SystemTime) -> Seen {
        if self.is_glitch(seen) {
            let is_first = !self.has_met_a_glitch.swap(true, Relaxed);
            return Seen::Glitch { is_first };
        }
        let nanos = u64::try_from(self.ahead_by(seen).as_nanos()).unwrap_or(u64::MAX);
        self.ahead.fetch_max(nanos, Relaxed);
        Seen::Counts
    }

    /// Whether the time is too far ahead to be plausible.
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
        // A deadline before the epoch has passed.
        self.clock
            .sleep_until(deadline.unwrap_or(SystemTime::UNIX_EPOCH))
    }

    pub(crate) fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        match self.clock.now().checked_add(wait) {
            Some(deadline) => self.clock.sleep_until(deadline),
            // The deadline cannot be represented, so the wait never ends.
            None => Box::pin(std::future::pending()),
        }
    }
}
