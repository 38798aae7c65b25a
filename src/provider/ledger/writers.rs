//! The last batch of each writer, and the answer it was given.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    batch::{BatchId, Committed, WriterId},
    record::Timestamp,
};

/// What a store remembers of its writers: the last batch that was applied of
/// each, and the answer it was given.
///
/// It has to survive together with the batch itself. A store may keep it as text,
/// with serde.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Writers(BTreeMap<WriterId, Remembered>);

/// The last batch that was applied of a writer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Remembered {
    /// Its sequence.
    pub sequence: u64,
    /// When it was applied, by the clock of the store.
    pub at: Timestamp,
    /// The answer, which a repeat is given again.
    pub answer: Committed,
}

impl Writers {
    /// No writer.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The sequence of a writer's last batch, as [`admit`](super::admit) asks for
    /// it; `None` if the writer is not known.
    pub fn sequence_of(&self, writer: WriterId) -> Option<u64> {
        self.0.get(&writer).map(|last| last.sequence)
    }

    /// The answer to a writer's last batch.
    pub fn answer_to(&self, writer: WriterId) -> Committed {
        let last = self.0.get(&writer);
        last.map(|last| last.answer.clone()).unwrap_or_default()
    }

    /// Remembers a batch that was applied at that time, by the clock of the store.
    pub fn remember(&mut self, id: BatchId, at: SystemTime, answer: Committed) {
        let last = Remembered {
            sequence: id.sequence,
            at: Timestamp::of(at),
            answer,
        };
        self.0.insert(id.writer, last);
    }

    /// Forgets the writers for which this is false. The contract asks a store to
    /// remember each for a day after its last batch.
    pub fn retain(&mut self, mut keep: impl FnMut(WriterId, &Remembered) -> bool) {
        self.0.retain(|writer, last| keep(*writer, last));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (WriterId, &Remembered)> {
        self.0.iter().map(|(writer, last)| (*writer, last))
    }
}
