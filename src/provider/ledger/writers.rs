//! The last batch of each writer, and the answer to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    batch::{BatchId, Committed, WriterId},
    record::Timestamp,
};

/// The writers that a store knows: the last applied batch of each, and the answer to it.
///
/// It must be committed together with the batch itself. It implements serde's traits, so that
/// a store may keep it as text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Writers(BTreeMap<WriterId, Remembered>);

/// The last applied batch of a writer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Remembered {
    /// Its sequence.
    pub sequence: u64,
    /// When it was applied, by the clock of the store.
    pub at: Timestamp,
    /// The answer, for repeats of the batch.
    pub answer: Committed,
}

impl Writers {
    /// Creates an empty list.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The sequence of a writer's last batch, for [`admit`](super::admit); `None` if the
    /// writer is unknown.
    pub fn sequence_of(&self, writer: WriterId) -> Option<u64> {
        self.0.get(&writer).map(|last| last.sequence)
    }

    /// The answer to a writer's last batch.
    pub fn answer_to(&self, writer: WriterId) -> Committed {
        let last = self.0.get(&writer);
        last.map(|last| last.answer.clone()).unwrap_or_default()
    }

    /// Records a batch that was applied at this time, by the clock of the store.
    pub fn remember(&mut self, id: BatchId, at: impl Into<Timestamp>, answer: Committed) {
        let last = Remembered {
            sequence: id.sequence,
            at: at.into(),
            answer,
        };
        self.0.insert(id.writer, last);
    }

    /// Removes the writers for which `keep` returns false. The contract requires that a store
    /// remembers each writer for a day after its last batch.
    pub fn retain(&mut self, mut keep: impl FnMut(WriterId, &Remembered) -> bool) {
        self.0.retain(|writer, last| keep(*writer, last));
    }

    /// Iterates over all writers.
    pub fn iter(&self) -> impl Iterator<Item = (WriterId, &Remembered)> {
        self.0.iter().map(|(writer, last)| (*writer, last))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        batch::Skipped,
        name::MapName,
        record::{Payload, Record, Revision},
    };

    #[test]
    fn an_answer_that_was_kept_as_text_is_the_same() {
        let map = MapName::parse("a/b").unwrap();
        let payload = Payload::json(r#"{"a": [1.50, "\u00e9"]}"#).with_schema(3);
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234);
        let found = Record::new("key", Some(payload), Revision::new(7)).with_expires_at(Some(at));
        let skipped = [("key", Some(found)), ("none", None)];
        let skipped = skipped.map(|(key, found)| Skipped::new(map.clone(), key.into(), found));
        let answer = Committed::at(Revision::new(9)).with_skipped(skipped.into());
        let (id, plain) = (BatchId::new(WriterId::new(1), 5), Committed::default());
        let other = BatchId::new(WriterId::random(), 6);
        let mut writers = Writers::new();
        writers.remember(id, at, answer.clone());
        writers.remember(other, at, plain.clone());

        let text = serde_json::to_string(&writers).unwrap();
        let read: Writers = serde_json::from_str(&text).unwrap();
        assert_eq!(read.sequence_of(id.writer), Some(5), "{text}");
        assert_eq!(read.answer_to(id.writer), answer, "{text}");
        assert_eq!(read.answer_to(other.writer), plain, "{text}");
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
