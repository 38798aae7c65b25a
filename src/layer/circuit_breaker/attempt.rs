//! A call to the store through a circuit breaker.

use std::{mem, thread, time::Duration};

use super::{
    circuit::{Circuit, Pass},
    outcomes::Outcome,
};
use crate::error::{Error, ErrorKind, Result};

/// A call that is dropped sooner says nothing about the store, because its caller hardly
/// waited for an answer.
const NO_ANSWER: Duration = Duration::from_millis(100);

/// A call on its way to the store. Its outcome counts when this is dropped, even if that
/// happens because the future of the call is dropped.
pub(super) struct Attempt<'a> {
    circuit: &'a Circuit,
    pass: Pass,
    outcome: Option<Outcome>,
}

impl<'a> Attempt<'a> {
    /// # Errors
    ///
    /// Those of [`Circuit::admit`].
    pub(super) fn begin(circuit: &'a Circuit) -> Result<Self> {
        let pass = circuit.admit()?;
        Ok(Self::with(circuit, pass))
    }

    /// The read of a page of a load, which has begun already.
    pub(super) fn page(circuit: &'a Circuit) -> Self {
        Self::with(circuit, circuit.page())
    }

    fn with(circuit: &'a Circuit, pass: Pass) -> Self {
        Self {
            circuit,
            pass,
            outcome: None,
        }
    }

    /// Ends the call with the answer of the store.
    pub(super) fn end<T>(mut self, answer: Result<T>) -> Result<T> {
        let failed = answer.as_ref().err().and_then(failure);
        self.outcome = Some(failed.unwrap_or(Outcome::Answered));
        answer
    }

    /// Ends the read of a page. Only a failure counts: the load has counted as a success.
    pub(super) fn end_of_page<T>(mut self, page: Option<Result<T>>) -> Option<Result<T>> {
        let error = page.as_ref().and_then(|page| page.as_ref().err());
        self.outcome = Some(error.and_then(failure).unwrap_or(Outcome::Unknown));
        page
    }

    /// The outcome of a call that is dropped without an answer.
    fn given_up(&self) -> Outcome {
        let waited = self.pass.began.elapsed();
        let message = if thread::panicking() {
            "the provider panicked".to_owned()
        } else if waited >= NO_ANSWER {
            format!("the caller gave up after {waited:?} without an answer")
        } else {
            return Outcome::Unknown;
        };
        Outcome::Failed(Error::new(ErrorKind::Unavailable, message))
    }
}

/// Every other error is the answer of a store that works.
fn failure(error: &Error) -> Option<Outcome> {
    let is_failure = error.kind() == ErrorKind::Unavailable;
    is_failure.then(|| Outcome::Failed(error.clone()))
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let outcome = mem::take(&mut self.outcome);
        let outcome = outcome.unwrap_or_else(|| self.given_up());
        self.circuit.ended(&self.pass, outcome);
    }
}
