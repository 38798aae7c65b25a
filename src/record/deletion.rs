//! The part of a deletion that a store keeps.

use serde::{Deserialize, Serialize};

use crate::writer_id::WriterId;

/// Why an entry was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// It was removed.
    #[default]
    Removed,
    /// It expired.
    Expired,
}

/// The cause and the writer of a deletion, which a tombstone keeps beside the key,
/// revision and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Deletion {
    /// Why the entry was deleted.
    pub cause: Cause,
    /// The writer that deleted it.
    pub writer: WriterId,
}

impl Deletion {
    /// Creates the description of a deletion.
    pub const fn new(cause: Cause, writer: WriterId) -> Self {
        Self { cause, writer }
    }
}
