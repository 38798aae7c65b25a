//! The options of a circuit breaker and their bounds.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The maximum number of calls whose outcomes the breaker keeps.
const MAX_CALLS: usize = 10_000;

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) failures: usize,
    /// The share of failed calls, and the number of calls that it is a share of.
    pub(super) failure_rate: Option<(f64, usize)>,
    pub(super) window: Duration,
    pub(super) cool_down: Duration,
    pub(super) name: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            failures: 5,
            failure_rate: None,
            window: Duration::from_secs(5 * 60),
            cool_down: Duration::from_secs(5),
            name: "main".to_owned(),
        }
    }
}

impl Options {
    /// The number of outcomes that may decide.
    pub(super) fn calls(&self) -> usize {
        let of_rate = self.failure_rate.map_or(0, |(_, calls)| calls);
        self.failures.max(of_rate)
    }

    /// # Errors
    ///
    /// `Invalid`, naming the option and its bounds.
    pub(super) fn check(&self) -> Result<()> {
        let (failures, bounds) = (self.failures, 1..=MAX_CALLS);
        let problem = match self.failure_rate {
            _ if !bounds.contains(&failures) => {
                format!("failures is {failures}; it must be 1 to {MAX_CALLS} calls")
            }
            Some((rate, _)) if !(rate > 0.0 && rate <= 1.0) => {
                format!("failure_rate is {rate}; it must be above 0 and at most 1")
            }
            Some((_, calls)) if !bounds.contains(&calls) => {
                format!("failure_rate counts {calls} calls; it must be 1 to {MAX_CALLS} calls")
            }
            _ if self.window.is_zero() => "window is zero; it must be above zero".to_owned(),
            _ if self.cool_down.is_zero() => "cool_down is zero; it must be above zero".to_owned(),
            _ => return Ok(()),
        };
        let message = format!("the circuit breaker cannot work: {problem}");
        Err(Error::new(ErrorKind::Invalid, message))
    }
}
