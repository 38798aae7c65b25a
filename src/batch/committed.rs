//! The result of a commit, and the changes that were left out of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    incarnation::Incarnation,
    name::MapName,
    record::{Record, Revision},
};

/// The result of a batch that was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Committed {
    /// The revision of all entries that the batch wrote; `None` if a layer acknowledged the
    /// batch before its store did, or if several stores of a layer have assigned different ones.
    pub revision: Option<Revision>,
    /// The changes that were left out because their own condition, or another one of
    /// their [group](crate::Change::group), did not hold; in the order of the batch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// The incarnation of the store; `None` if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
}

impl Committed {
    /// Creates the result of a batch that was applied as a whole, as this revision.
    pub fn at(revision: Revision) -> Self {
        Self {
            revision: Some(revision),
            skipped: Vec::new(),
            incarnation: None,
        }
    }

    /// Sets the incarnation of the store.
    #[must_use]
    pub fn with_incarnation(mut self, incarnation: Option<Incarnation>) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// Sets the changes that were left out.
    #[must_use]
    pub fn with_skipped(mut self, skipped: Vec<Skipped>) -> Self {
        self.skipped = skipped;
        self
    }
}

/// A change that was left out of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Skipped {
    /// Its map.
    pub map: MapName,
    /// Its key.
    pub key: Arc<str>,
    /// The stored entry that was found instead.
    pub found: Option<Record>,
}

impl Skipped {
    /// Creates the report of a change of that key, left out because of the found entry.
    pub fn new(map: MapName, key: Arc<str>, found: Option<Record>) -> Self {
        Self { map, key, found }
    }
}
