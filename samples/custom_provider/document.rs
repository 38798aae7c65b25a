//! A map as it is stored: one JSON document.

use std::{collections::BTreeMap, time::SystemTime};

use persistify::{Batch, BatchId, Change, MapBatch, Op, Payload, Record, Revision, Turn};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What keeps the contract is in it, too: all changes together or not at all.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) revision: u64,
    /// The last batch of each writer, and the revision it was given.
    writers: BTreeMap<String, (u64, u64)>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    value: Box<RawValue>,
    schema: u32,
    revision: u64,
    expires_at: Option<SystemTime>,
    updated_at: SystemTime,
}

impl Document {
    pub(crate) fn records(self) -> Vec<Record> {
        let records = self.entries.into_iter().map(|(key, entry)| {
            let value = Payload::json(entry.value.get().to_owned()).with_schema(entry.schema);
            Record::new(key, Some(value), Revision::new(entry.revision))
                .with_expires_at(entry.expires_at)
                .with_updated_at(Some(entry.updated_at))
        });
        records.collect()
    }

    /// Whether a batch is new, a repeat or late; and what the last was answered.
    pub(crate) fn turn(&self, id: BatchId) -> (Turn, Revision) {
        let last = self.writers.get(&id.writer.to_string());
        let (last, answer) = last.copied().unzip();
        (id.turn(last), Revision::new(answer.unwrap_or(0)))
    }

    /// Makes the changes and notes whose they were.
    pub(crate) fn apply(&mut self, batch: &Batch, part: &MapBatch) -> serde_json::Result<()> {
        self.revision = batch.revision_after(Revision::new(self.revision)).get();
        let answer = (batch.id.sequence, self.revision);
        self.writers.insert(batch.id.writer.to_string(), answer);
        if part.clear {
            self.entries.clear();
        }
        (part.changes.iter()).try_for_each(|change| self.change(change, batch.at))
    }

    fn change(&mut self, change: &Change, at: SystemTime) -> serde_json::Result<()> {
        let (key, revision) = (change.key.to_string(), self.revision);
        if let Op::Put {
            payload,
            expires_at,
        } = &change.op
        {
            let entry = Entry {
                value: serde_json::from_slice(&payload.bytes)?,
                schema: payload.schema,
                revision,
                expires_at: *expires_at,
                updated_at: change.written_at.unwrap_or(at),
            };
            self.entries.insert(key, entry);
        } else if let Op::Touch { expires_at } = change.op {
            if let Some(entry) = self.entries.get_mut(&key) {
                (entry.expires_at, entry.revision) = (expires_at, revision);
            }
        } else {
            self.entries.remove(&key);
        }
        Ok(())
    }
}
