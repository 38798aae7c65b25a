//! Entries of a journal: batches of one map, as lines of JSON.

use std::{sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    batch::{Batch, BatchId, Change, MapBatch, Op, WriterId},
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    name::MapName,
    record::{Cause, Payload, Revision, Timestamp},
};

/// A batch that was acknowledged and that the remote may not have yet.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// One more than that of the entry before, also across files and restarts.
    pub(super) number: u64,
    /// The batch; it has one part.
    pub(super) batch: Batch,
    /// The size of its frame.
    pub(super) bytes: u64,
}

/// An entry as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Entry")]
struct EntryForm {
    number: u64,
    writer: WriterId,
    sequence: u64,
    after: Revision,
    at: Timestamp,
    clear: bool,
    incarnation: Option<Incarnation>,
    seen: Option<Revision>,
    changes: Vec<ChangeForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Change")]
struct ChangeForm {
    key: Arc<str>,
    op: OpForm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Payload>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written_at: Option<Timestamp>,
    #[serde(default)]
    cause: Cause,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OpForm {
    Put,
    Touch,
    Delete,
}

/// The only part of a journaled batch.
pub(super) fn part(batch: &Batch) -> &MapBatch {
    &batch.maps[0]
}

/// The line of JSON for a batch.
///
/// # Errors
///
/// `Refused` if a value is no text although it should be JSON.
pub(super) fn encode(number: u64, batch: &Batch) -> Result<Vec<u8>> {
    let part = part(batch);
    let form = EntryForm {
        number,
        writer: batch.id.writer,
        sequence: batch.id.sequence,
        after: batch.after,
        at: batch.at.into(),
        clear: part.clear,
        incarnation: part.incarnation,
        seen: part.seen,
        changes: part.changes.iter().map(ChangeForm::of).collect(),
    };
    serde_json::to_vec(&form).map_err(|error| {
        let message = "a value is not the text of JSON, so it cannot be journaled";
        let error = Error::new(ErrorKind::Refused, message).with_source(error);
        error.on_map(&part.map)
    })
}

/// The batch of a line, and its number; `None` if [`encode`] did not write it.
pub(super) fn decode(map: &MapName, line: &[u8]) -> Option<(u64, Batch)> {
    let form: EntryForm = serde_json::from_slice(line).ok()?;
    let changes = { form.changes.into_iter() }.map(ChangeForm::change);
    let part = MapBatch::new(map.clone(), changes.collect::<Option<_>>()?)
        .clearing(form.clear)
        .in_incarnation(form.incarnation)
        .having_seen(form.seen);
    let id = BatchId::new(form.writer, form.sequence);
    let batch = Batch::new(id, form.after, form.at.time()?, [part]).divisible(true);
    Some((form.number, batch))
}

/// The changes of these keys, as lines of JSON with the reason.
pub(super) fn refusals(number: u64, changes: &[Change], error: &Error) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Refusal {
        number: u64,
        error: String,
        change: ChangeForm,
    }
    let mut lines = Vec::new();
    for change in changes {
        let refusal = Refusal {
            number,
            error: error.to_string(),
            change: ChangeForm::of(change),
        };
        serde_json::to_writer(&mut lines, &refusal).map_err(|error| {
            let message = "a refused change cannot be set aside";
            Error::new(ErrorKind::Corrupt, message).with_source(error)
        })?;
        lines.push(b'\n');
    }
    Ok(lines)
}

impl ChangeForm {
    fn of(change: &Change) -> Self {
        let (op, value, expires_at) = match &change.op {
            Op::Put {
                payload,
                expires_at,
            } => (OpForm::Put, Some(payload.clone()), *expires_at),
            Op::Touch { expires_at } => (OpForm::Touch, None, *expires_at),
            Op::Delete => (OpForm::Delete, None, None),
        };
        Self {
            key: change.key.clone(),
            op,
            value,
            expires_at: expires_at.map(Timestamp::of),
            written_at: change.written_at.map(Timestamp::of),
            cause: change.cause,
        }
    }

    fn change(self) -> Option<Change> {
        let time = |at: Option<Timestamp>| -> Option<SystemTime> { at?.time() };
        let expires_at = time(self.expires_at);
        let change = match self.op {
            OpForm::Put => Change::put(self.key, self.value?, expires_at),
            OpForm::Touch => Change::touch(self.key, expires_at),
            OpForm::Delete => Change::delete(self.key),
        };
        Some(change.written_at(time(self.written_at)).because(self.cause))
    }
}
