//! How often and how fast a failed save is retried.

use std::time::{Duration, SystemTime};

use tokio_retry::strategy::{ExponentialBackoff, jitter};

use crate::error::{Error, ErrorKind, Result};

/// How often and how fast a save is retried while the store is
/// [`Unavailable`](ErrorKind::Unavailable): exponential backoff with full jitter.
///
/// An outage shorter than the [`patience`](Self::patience) is only a delay: waiting
/// saves keep waiting. When the patience or the [attempts](Self::max_attempts) are
/// used up, no change is given up. All changes stay pending, waiting saves return
/// the error, [health](crate::Map::health) turns to `Down`, and the store is probed
/// until it is back:
///
/// - every [`probe_delay`](Self::probe_delay);
/// - at once if a caller waits for a save, a flush, a reload or a close, if
///   [`retry_now`](crate::Map::retry_now) is called, or if another map finds the
///   same store healthy, but no sooner than [`base_delay`](Self::base_delay) after
///   the last attempt. All waiting callers share one attempt.
///
/// ```
/// # use std::time::Duration;
/// # use persistify::RetryPolicy;
/// let patient = RetryPolicy::default()
///     .patience(Duration::from_secs(60))
///     .max_attempts(100)
///     .base_delay(Duration::from_millis(200));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    max_attempts: u32,
    patience: Duration,
    base_delay: Duration,
    max_delay: Duration,
    probe_delay: Duration,
    jitter: bool,
}

impl Default for RetryPolicy {
    /// 10 seconds of patience with attempts 100 milliseconds to 2 seconds apart,
    /// with jitter; then a probe every 30 seconds. (The limit of 50 attempts is not
    /// reached in that time.)
    ///
    /// 10 seconds cover the restart of a server or a failover to its standby:
    /// planned outages that callers need not see. Longer outages are for the caller
    /// to handle.
    fn default() -> Self {
        Self {
            max_attempts: 50,
            patience: Duration::from_secs(10),
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(2),
            probe_delay: Duration::from_secs(30),
            jitter: true,
        }
    }
}

impl RetryPolicy {
    /// Sets how many attempts a batch has, including the first; at least 1, 50 by
    /// default. They end earlier if the [patience](Self::patience) is used up.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets how long a batch is retried, counted from its first failure, before
    /// waiting callers get the error; 10 seconds by default. The last attempt
    /// starts when that time has elapsed. A longer patience rides out longer outages
    /// (raise [`max_attempts`](Self::max_attempts) with it); a shorter one reports
    /// earlier. Not used by [`retry_conflicts`](crate::Builder::retry_conflicts).
    #[must_use]
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Sets the delay before the second attempt; each further delay doubles. Also
    /// the minimum time between two attempts on a store that is down, however many
    /// callers wait for it. At least 1 millisecond, at most
    /// [`max_delay`](Self::max_delay); 100 milliseconds by default.
    #[must_use]
    pub fn base_delay(mut self, delay: Duration) -> Self {
        self.base_delay = delay;
        self
    }

    /// Sets the longest delay between two attempts; 2 seconds by default.
    #[must_use]
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Sets the time between two probes of a store that is down while no caller
    /// waits for it; at least 1 millisecond, 30 seconds by default. A shorter delay
    /// notices sooner that the store is back; a longer one spares it, as each probe
    /// tries to commit pending changes.
    #[must_use]
    pub fn probe_delay(mut self, delay: Duration) -> Self {
        self.probe_delay = delay;
        self
    }

    /// Sets whether each delay is drawn at random between zero and its full length,
    /// so that many maps do not retry at the same moment. On by default; turn it
    /// off in tests that depend on the delays.
    #[must_use]
    pub fn jitter(mut self, jitter: bool) -> Self {
        self.jitter = jitter;
        self
    }

    /// # Errors
    ///
    /// `Invalid`, naming the option and its bounds.
    pub(crate) fn check(&self, option: &str) -> Result<()> {
        let (base, max) = (self.base_delay, self.max_delay);
        let problem = if self.max_attempts == 0 {
            "max_attempts is 0; it must be at least 1".to_owned()
        } else if base < Duration::from_millis(1) {
            format!("base_delay is {base:?}; it must be at least 1 ms")
        } else if max < base {
            format!("max_delay is {max:?}; it must be at least base_delay, which is {base:?}")
        } else if self.probe_delay < Duration::from_millis(1) {
            let probe = self.probe_delay;
            format!("probe_delay is {probe:?}; it must be at least 1 ms")
        } else {
            return Ok(());
        };
        let problem = format!("{option}: {problem}");
        Err(Error::new(ErrorKind::Invalid, problem))
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.max_attempts
    }

    /// The time between two probes, and the part of it that nothing cuts short.
    pub(crate) fn probe_delays(&self) -> (Duration, Duration) {
        (self.probe_delay, self.base_delay.min(self.probe_delay))
    }

    /// This policy with another patience and no limit of attempts, to open a map.
    pub(crate) fn within(&self, limit: Duration) -> Self {
        self.clone().patience(limit).max_attempts(u32::MAX)
    }

    /// The delays between two attempts.
    pub(crate) fn delays(&self) -> impl Iterator<Item = Duration> + Send + Sync + use<> {
        // The strategy's delays are factor × 2^n from n = 1, so each is twice the
        // wanted one.
        let base = u64::try_from(self.base_delay.as_millis()).unwrap_or(u64::MAX);
        let (max, jittered) = (self.max_delay, self.jitter);
        ExponentialBackoff::from_millis(2)
            .factor(base)
            .map(move |twice| (twice / 2).min(max))
            .map(move |delay| if jittered { jitter(delay) } else { delay })
    }
}

/// The attempts of one batch.
pub(crate) struct Attempts {
    policy: RetryPolicy,
    delays: Box<dyn Iterator<Item = Duration> + Send + Sync>,
    pub(crate) made: u32,
    /// When the patience began.
    since: Option<SystemTime>,
}

impl Attempts {
    /// No attempt yet; the patience begins with the first failure.
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        Self {
            policy: policy.clone(),
            delays: Box::new(policy.delays()),
            made: 0,
            since: None,
        }
    }

    /// Starts the patience now.
    pub(crate) fn since(mut self, now: SystemTime) -> Self {
        self.since = Some(now);
        self
    }

    /// Counts a failed attempt; returns the delay before the next, or `None` if no
    /// attempts are left.
    pub(crate) fn failed(&mut self, now: SystemTime) -> Option<Duration> {
        self.made = self.made.saturating_add(1);
        let since = *self.since.get_or_insert(now);
        let past = now.duration_since(since).unwrap_or_default();
        let left = self.policy.patience.saturating_sub(past);
        if self.made >= self.policy.max_attempts || left.is_zero() {
            return None;
        }
        Some(self.delays.next().unwrap_or_default().min(left))
    }
}
