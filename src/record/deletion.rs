//! What a store keeps of a deletion.

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
    /// Its time to live was over.
    Expired,
}

/// What a tombstone keeps of a deletion, beside its key, revision and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Deletion {
    /// Why the entry was deleted.
    pub cause: Cause,
    /// The writer that deleted it.
    pub writer: WriterId,
}

impl Deletion {
    /// A deletion for that cause by that writer.
    pub const fn new(cause: Cause, writer: WriterId) -> Self {
        Self { cause, writer }
    }
}
