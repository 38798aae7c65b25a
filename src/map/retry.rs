//! How often and how fast a failed save is tried again.

use std::time::Duration;

use tokio_retry::strategy::{ExponentialBackoff, jitter};

use crate::error::{Error, ErrorKind, Result};

/// How often and how fast a save is tried again while the store is
/// [`Unavailable`](ErrorKind::Unavailable): exponential backoff with full jitter.
///
/// When the attempts are spent, nothing is given up: everything stays pending,
/// [health](crate::Map::health) says so, and one probe every
/// [`max_delay`](Self::max_delay) finds out when the store is back.
///
/// ```
/// # use std::time::Duration;
/// # use persistify::RetryPolicy;
/// let patient = RetryPolicy::default()
///     .max_attempts(10)
///     .base_delay(Duration::from_millis(200));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    max_attempts: u32,
    base_delay: Duration,
    max_delay: Duration,
    jitter: bool,
}

impl Default for RetryPolicy {
    /// 5 attempts, from 100 milliseconds up to 30 seconds, with jitter.
    fn default() -> Self {
        Self {
            max_attempts: 5,
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            jitter: true,
        }
    }
}

impl RetryPolicy {
    /// How many attempts a batch has, the first one included; at least 1.
    /// More of them ride out longer outages before waiters are told.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The delay before the second attempt; each further one doubles it. At
    /// least a millisecond, at most [`max_delay`](Self::max_delay).
    #[must_use]
    pub fn base_delay(mut self, delay: Duration) -> Self {
        self.base_delay = delay;
        self
    }

    /// The longest delay, and the time between two probes of a store that is
    /// down. A short one notices sooner that the store is back; a long one
    /// spares it.
    #[must_use]
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
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
    pub(super) fn check(&self, option: &str) -> Result<()> {
        let (base, max) = (self.base_delay, self.max_delay);
        let problem = if self.max_attempts == 0 {
            "max_attempts is 0; it must be at least 1".to_owned()
        } else if base < Duration::from_millis(1) {
            format!("base_delay is {base:?}; it must be at least 1 ms")
        } else if max < base {
            format!("max_delay is {max:?}; it must be at least base_delay, which is {base:?}")
        } else {
            return Ok(());
        };
        let problem = format!("{option}: {problem}");
        Err(Error::new(ErrorKind::Invalid, problem))
    }

    pub(super) fn attempts(&self) -> u32 {
        self.max_attempts
    }

    pub(super) fn probe_delay(&self) -> Duration {
        self.max_delay
    }

    /// The delays between the attempts of one batch.
    pub(super) fn delays(&self) -> impl Iterator<Item = Duration> + Send + Sync + use<> {
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
