//! How often and how fast a failed save is tried again.

use std::time::{Duration, SystemTime};

use tokio_retry::strategy::{ExponentialBackoff, jitter};

use crate::error::{Error, ErrorKind, Result};

/// How often and how fast a save is tried again while the store is
/// [`Unavailable`](ErrorKind::Unavailable): exponential backoff with full jitter.
///
/// An outage that is over within the [`patience`](Self::patience) is no more than
/// a delay: those who wait for a save wait on. When the patience or the
/// [attempts](Self::max_attempts) are spent, nothing is given up. Everything stays
/// pending, those who wait are told, [health](crate::Map::health) turns
/// to `Down`, and the store is probed until it is back:
///
/// - every [`probe_delay`](Self::probe_delay), if nothing else happens;
/// - at once if somebody waits for a save, a flush, a reload or a close, if
///   [`retry_now`](crate::Map::retry_now) is called, or if another map
///   finds the same store well, provided that the last attempt is a
///   [`base_delay`](Self::base_delay) ago. However many wait, they share it.
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
    /// 10 seconds of patience, in which attempts are 100 milliseconds up to 2
    /// seconds apart, with jitter; then a probe every 30 seconds. (50 attempts are
    /// more than there is time for.)
    ///
    /// 10 seconds are what the restart of a server or a failover to its standby
    /// takes: an outage that its operators planned, and that no caller needs to
    /// hear of. Longer ones are for the caller to know.
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
    /// How many attempts a batch has, the first one included; at least 1, 50 by
    /// default. They are spent earlier if the [patience](Self::patience) is.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// How long a batch is tried again, counted from its first failure, before
    /// those who wait are told; 10 seconds by default. The last attempt begins at
    /// the end of that time. A longer one rides out longer outages (raise
    /// [`max_attempts`](Self::max_attempts) with it), a shorter one tells earlier.
    /// It has no part in [`retry_conflicts`](crate::Builder::retry_conflicts).
    #[must_use]
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// The delay before the second attempt; each further one doubles it. Also the
    /// least time between two attempts on a store that is down, however many
    /// callers wait for it. At least a millisecond, at most
    /// [`max_delay`](Self::max_delay); 100 milliseconds by default.
    #[must_use]
    pub fn base_delay(mut self, delay: Duration) -> Self {
        self.base_delay = delay;
        self
    }

    /// The longest delay between two attempts; 2 seconds by default.
    #[must_use]
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// The time between two probes of a store that is down while nobody waits
    /// for it; at least a millisecond, 30 seconds by default. A short one notices
    /// sooner that the store is back; a long one spares it: each probe tries to
    /// commit what is pending.
    #[must_use]
    pub fn probe_delay(mut self, delay: Duration) -> Self {
        self.probe_delay = delay;
        self
    }

    /// Whether each delay is drawn at random between zero and its full length,
    /// so that many maps do not knock all at once. On unless a test needs to
    /// know the delays.
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

    /// The time between two probes, and how much of it nothing cuts short.
    pub(crate) fn probe_delays(&self) -> (Duration, Duration) {
        (self.probe_delay, self.base_delay.min(self.probe_delay))
    }

    /// The same policy, for an opening that may take so long.
    pub(crate) fn within(&self, limit: Duration) -> Self {
        self.clone().patience(limit).max_attempts(u32::MAX)
    }

    /// The delays between two attempts.
    pub(crate) fn delays(&self) -> impl Iterator<Item = Duration> + Send + Sync + use<> {
        // The strategy's delays are factor × 2^n from n = 1, so each is twice
        // what is wanted.
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
    /// From when on the patience counts.
    since: Option<SystemTime>,
}

impl Attempts {
    /// None is made yet; the patience begins with the first failure.
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        Self {
            policy: policy.clone(),
            delays: Box::new(policy.delays()),
            made: 0,
            since: None,
        }
    }

    /// The patience begins now.
    pub(crate) fn since(mut self, now: SystemTime) -> Self {
        self.since = Some(now);
        self
    }

    /// One more has failed: the delay before the next one; `None` if they are
    /// spent.
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
