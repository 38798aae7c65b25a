//! The report of a run of the suite.

use std::fmt;

/// A promise of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Promise {
    /// Loads return what was committed.
    Faithful,
    /// A batch is applied completely or not at all.
    Atomic,
    /// Each batch is applied once, and late ones change nothing.
    IdempotentAndFenced,
    /// Maps are isolated from each other.
    Isolated,
    /// What was committed is still there after the store is reopened.
    Durable,
    /// Revisions always grow.
    Ordered,
    /// The provider does what its capabilities say, and its errors are reliable.
    Honest,
}

impl Promise {
    pub(super) const ALL: [Self; 7] = [
        Self::Faithful,
        Self::Atomic,
        Self::IdempotentAndFenced,
        Self::Isolated,
        Self::Durable,
        Self::Ordered,
        Self::Honest,
    ];
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Faithful => "faithful",
            Self::Atomic => "atomic",
            Self::IdempotentAndFenced => "idempotent and fenced",
            Self::Isolated => "isolated",
            Self::Durable => "durable",
            Self::Ordered => "ordered",
            Self::Honest => "honest",
        })
    }
}

/// A promise that the provider keeps: what was checked, and what was not.
///
/// Its `Display` output is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    promise: Promise,
    ran: Vec<String>,
    left_out: Vec<String>,
}

impl Outcome {
    pub(super) fn new(promise: Promise) -> Self {
        Self {
            promise,
            ran: Vec::new(),
            left_out: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, check: &str) {
        self.ran.push(check.to_owned());
    }

    pub(super) fn leave_out(&mut self, check: &str, why: &str) {
        self.left_out.push(format!("{check} ({why})"));
    }

    /// The promise.
    pub fn promise(&self) -> Promise {
        self.promise
    }

    /// What was checked.
    pub fn ran(&self) -> &[String] {
        &self.ran
    }

    /// What was not checked, and why. Usually the provider does not have the capability.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} checked", self.promise, self.ran.len())?;
        if !self.left_out.is_empty() {
            write!(f, "; left out: {}", self.left_out.join(", "))?;
        }
        Ok(())
    }
}

/// The results of the suite, promise by promise.
///
/// Its `Display` output has one line for each promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    outcomes: Vec<Outcome>,
}

impl Report {
    pub(super) fn new(outcomes: Vec<Outcome>) -> Self {
        Self { outcomes }
    }

    /// The promises, in the order in which they were tested.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, outcome) in self.outcomes.iter().enumerate() {
            write!(f, "{}{outcome}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}
