//! The outcomes of the last calls, which decide when a breaker opens.

use std::{collections::VecDeque, fmt};

use tokio::time::Instant;

use super::options::Options;
use crate::error::Error;

/// The outcome of a call, as evidence about the store.
pub(super) enum Outcome {
    Answered,
    Failed(Error),
    /// It says nothing: the call was cancelled at once, or read a page.
    Unknown,
}

/// The last outcomes within the window; at most as many as the options need.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    last: VecDeque<Ended>,
    /// How many calls have failed since the last success.
    run: usize,
}

#[derive(Debug)]
struct Ended {
    at: Instant,
    has_failed: bool,
}

/// The reason for which a breaker opens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reason {
    failed: usize,
    calls: usize,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failed, calls } = self;
        write!(f, "{failed} of the last {calls} calls failed")
    }
}

impl Outcomes {
    /// Records the outcome of a call. If the breaker opens, returns the reason and the error of
    /// the call.
    pub(super) fn after(
        &mut self,
        outcome: Outcome,
        at: Instant,
        options: &Options,
    ) -> Option<(Reason, Error)> {
        match outcome {
            Outcome::Answered => {
                self.add(at, false, options);
                None
            }
            Outcome::Failed(error) => {
                let reason = self.add(at, true, options)?;
                Some((reason, error))
            }
            Outcome::Unknown => None,
        }
    }

    fn add(&mut self, at: Instant, has_failed: bool, options: &Options) -> Option<Reason> {
        self.last.push_back(Ended { at, has_failed });
        let is_old = |first: &Ended| at.duration_since(first.at) > options.window;
        while self.last.len() > options.calls() || self.last.front().is_some_and(is_old) {
            self.last.pop_front();
        }
        if !has_failed {
            self.run = 0;
            return None;
        }
        self.run += 1;
        // The failures of a run that are no longer kept do not count.
        let run = self.run.min(self.last.len());
        if run >= options.failures {
            let (failed, calls) = (run, run);
            return Some(Reason { failed, calls });
        }
        self.rate(options)
    }

    #[expect(clippy::cast_precision_loss, reason = "at most 10,000 calls")]
    fn rate(&self, options: &Options) -> Option<Reason> {
        let (rate, calls) = options.failure_rate?;
        let last = self.last.iter().rev().take(calls);
        let failed = last.filter(|outcome| outcome.has_failed).count();
        let is_reached = self.last.len() >= calls && failed as f64 >= rate * calls as f64;
        is_reached.then_some(Reason { failed, calls })
    }
}
