//! The identity of a batch: its writer and a sequence number.

use std::time::SystemTime;

use crate::writer_id::WriterId;

/// Identifies a batch, so that a provider applies it only once.
///
/// The sequence numbers of a writer increase, in steps of any size. A batch that is
/// sent again is identical and has the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BatchId {
    /// The writer.
    pub writer: WriterId,
    /// The sequence number: larger than that of every earlier batch of this writer.
    pub sequence: u64,
}

impl BatchId {
    /// Creates the id of a batch from its writer and sequence number.
    pub const fn new(writer: WriterId, sequence: u64) -> Self {
        Self { writer, sequence }
    }

    /// Returns what a provider does with this batch, where `last` is the sequence
    /// number of the last batch of the same writer that it has applied.
    ///
    /// This is the fence: once a later batch was applied, an earlier one that was
    /// abandoned and arrives late changes nothing.
    pub fn turn(self, last: Option<u64>) -> Turn {
        match last {
            Some(last) if self.sequence == last => Turn::Repeat,
            Some(last) if self.sequence < last => Turn::Superseded,
            _ => Turn::Apply,
        }
    }
}

/// What a provider does with a batch that it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The batch is new: apply it.
    Apply,
    /// The batch was applied before: return the same answer again.
    Repeat,
    /// A later batch was applied: refuse this one as
    /// [`Superseded`](crate::ErrorKind::Superseded).
    Superseded,
}

/// A commit that a store has acknowledged and must therefore remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acknowledged {
    /// The batch that was committed.
    pub id: BatchId,
    /// When the writer received the answer, by its clock. A store may
    /// [forget](crate::ledger) a writer that has been idle for a day.
    pub at: SystemTime,
}

impl Acknowledged {
    /// Creates a value from the batch and the time of its acknowledgement.
    pub const fn new(id: BatchId, at: SystemTime) -> Self {
        Self { id, at }
    }
}
