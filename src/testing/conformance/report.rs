//! What a run of the suite did.

use std::fmt;

/// A word of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Word {
    /// What is loaded is what was committed.
    Faithful,
    /// A batch lands whole, or not at all.
    Atomic,
    /// Each batch is applied once; late ones change nothing.
    IdempotentAndFenced,
    /// No map sees another's keys.
    Isolated,
    /// What was committed is there when the store is opened again.
    Durable,
    /// Revisions grow.
    Ordered,
    /// It does what it claims, and its errors can be relied on.
    Honest,
}

impl Word {
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

impl fmt::Display for Word {
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

/// A word that is kept: what was checked, and what was not.
///
/// It displays as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    word: Word,
    ran: Vec<String>,
    left_out: Vec<String>,
}

impl Outcome {
    pub(super) fn new(word: Word) -> Self {
        Self {
            word,
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

    /// The word.
    pub fn word(&self) -> Word {
        self.word
    }

    /// What was checked.
    pub fn ran(&self) -> &[String] {
        &self.ran
    }

    /// What was not checked, and why: as a rule because the provider does not
    /// claim it.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} checked", self.word, self.ran.len())?;
        if !self.left_out.is_empty() {
            write!(f, "; left out: {}", self.left_out.join(", "))?;
        }
        Ok(())
    }
}

/// A contract that is kept, word by word.
///
/// It displays as one line a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    outcomes: Vec<Outcome>,
}

impl Report {
    pub(super) fn new(outcomes: Vec<Outcome>) -> Self {
        Self { outcomes }
    }

    /// The words, in the order in which they ran.
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
