//! The identity of a batch: its writer and a sequence number.

use std::time::SystemTime;

use crate::writer_id::WriterId;

/// What tells a batch from every other, so that a provider applies it once.
///
/// The sequences of a writer grow by whatever steps. A batch is sent again
/// under the same id only if it is the identical batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BatchId {
    /// The writer.
    pub writer: WriterId,
    /// Grows with each new batch of this writer.
    pub sequence: u64,
}

impl BatchId {
    /// That batch of that writer.
    pub const fn new(writer: WriterId, sequence: u64) -> Self {
        Self { writer, sequence }
    }

    /// What a provider does with this batch when `last` is the sequence of the
    /// last one it applied of the same writer.
    ///
    /// The fence rests on this: once a later batch was applied, an earlier one
    /// that was given up on and comes in late changes nothing.
    pub fn turn(self, last: Option<u64>) -> Turn {
        match last {
            Some(last) if self.sequence == last => Turn::Repeat,
            Some(last) if self.sequence < last => Turn::Superseded,
            _ => Turn::Apply,
        }
    }
}

/// What a provider does with a batch that comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is new: apply it.
    Apply,
    /// It was applied already: answer what was answered before.
    Repeat,
    /// A later one was applied: refuse it as
    /// [`Superseded`](crate::ErrorKind::Superseded).
    Superseded,
}

/// A commit that a store has acknowledged, and so has to remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acknowledged {
    /// The batch that was committed.
    pub id: BatchId,
    /// When the answer came, by the writer's clock. A store may
    /// [forget](crate::ledger) a writer that has been idle for a day.
    pub at: SystemTime,
}

impl Acknowledged {
    /// That batch was acknowledged at that time.
    pub const fn new(id: BatchId, at: SystemTime) -> Self {
        Self { id, at }
    }
}
