//! What a frame of a journal says: a batch as it was applied, the digest of a
//! snapshot that is about to take its place, or a new incarnation.

use std::time::SystemTime;

use super::{
    base64_text,
    index::{Entry, Index, Place, Source, Stamp},
};
use crate::{
    batch::{Batch, BatchId, Change, Committed, MapBatch, Op, WriterId},
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    provider::ledger::{self, Tombstones},
    record::{Cause, Deletion, Encoding, Payload, Record, Revision, Timestamp},
};

const BATCH: u8 = 1;
const ANNOUNCEMENT: u8 = 2;
const RENEWAL: u8 = 3;

const PUT: u8 = 0;
const TOUCH: u8 = 1;
const DELETE: u8 = 2;
/// A put that says when the value was written.
const PUT_WRITTEN: u8 = 3;
/// A delete of an entry that has expired.
const DELETE_EXPIRED: u8 = 4;
/// Added to a put: the value is bytes, and its text is base64.
const OF_BYTES: u8 = 0x10;

/// The payload of a frame, read in place.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    Applied(Applied<'a>),
    /// The snapshot of this digest holds all that the frames before it say.
    Announced(u128),
    /// From here on the map is in this incarnation.
    Renewed(Incarnation),
}

/// A batch as it was applied: what was skipped is not among the changes.
#[derive(Debug)]
pub(super) struct Applied<'a> {
    pub(super) id: BatchId,
    /// When, by this machine's clock.
    pub(super) committed_at: Timestamp,
    pub(super) answer: Committed,
    /// When, by the writer's clock.
    at: Stamp,
    clear: bool,
    changes: Vec<Become<'a>>,
}

/// What becomes of a key.
#[derive(Debug)]
struct Become<'a> {
    key: &'a str,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The place is relative to the payload.
    Put {
        /// When the value was written; not at the time of the batch.
        written: Option<Stamp>,
        expires: Stamp,
        encoding: Encoding,
        schema: u32,
        offset: usize,
        bytes: u32,
    },
    Touch {
        expires: Stamp,
    },
    Delete(Cause),
}

impl Applied<'_> {
    pub(super) fn revision(&self) -> Revision {
        self.answer.revision.unwrap_or_default()
    }

    /// Applies the changes to the index and the tombstones of the map before them. The
    /// payload starts at this offset in the journal.
    ///
    /// Commits and the replay of a journal run this code, so both have the same result.
    pub(super) fn apply(&self, index: &mut Index, tombstones: &mut Tombstones, start: u64) {
        if self.clear {
            index.clear();
            tombstones.clear(self.revision());
        }
        for change in &self.changes {
            match change.what {
                What::Delete(cause) => tombstones.delete(self.tombstone(change.key, cause)),
                What::Put { .. } => tombstones.put(change.key),
                What::Touch { .. } => {}
            }
            self.change(index, change, start);
        }
    }

    fn tombstone(&self, key: &str, cause: Cause) -> Record {
        let deletion = Deletion::new(cause, self.id.writer);
        Record::deleted(key, self.revision(), deletion).with_updated_at(self.at.time())
    }

    fn change(&self, index: &mut Index, change: &Become<'_>, start: u64) {
        match change.what {
            What::Put {
                written,
                expires,
                encoding,
                schema,
                offset,
                bytes,
            } => {
                let place = Place::new(Source::Journal, start + offset as u64, bytes);
                let entry = Entry {
                    revision: self.revision(),
                    expires,
                    updated: written.unwrap_or(self.at),
                    place: place.with_form(encoding, schema),
                };
                match index.get_mut(change.key) {
                    Some(stored) => *stored = entry,
                    None => _ = index.insert(change.key.into(), entry),
                }
            }
            What::Touch { expires } => {
                if let Some(stored) = index.get_mut(change.key) {
                    stored.revision = self.revision();
                    stored.expires = expires;
                }
            }
            What::Delete(_) => _ = index.remove(change.key),
        }
    }
}

/// The payload that says that this snapshot is about to come.
pub(super) fn announcement(digest: u128) -> Vec<u8> {
    let mut out = vec![ANNOUNCEMENT];
    out.extend(digest.to_le_bytes());
    out
}

/// The payload that gives the map this incarnation.
pub(super) fn renewal(incarnation: Incarnation) -> Vec<u8> {
    let mut out = vec![RENEWAL];
    out.extend(incarnation.get().to_le_bytes());
    out
}

/// The payload for this part of a batch, without the changes that were skipped, and without
/// deletions of keys that are not stored. So each deletion leaves a tombstone, also when the
/// journal is replayed on a snapshot that it was compacted into, which lacks the key. Texts of
/// more than 4 GiB were refused before.
pub(super) fn applied(
    batch: &Batch,
    part: &MapBatch,
    answer: &Committed,
    is_stored: impl Fn(&str) -> bool,
) -> Result<Vec<u8>> {
    let answer_text = serde_json::to_vec(answer).map_err(|error| {
        let message = "what the map holds instead of skipped changes is not text";
        Error::new(ErrorKind::Corrupt, message).with_source(error)
    })?;
    let changes = ledger::applied(part, &answer.skipped)
        .filter(|change| change.op != Op::Delete || is_stored(&change.key));
    let changes: Vec<_> = changes.collect();
    let mut out = Vec::with_capacity(64 + changes.len() * 64);
    out.push(BATCH);
    out.extend(batch.id.writer.get().to_le_bytes());
    out.extend(batch.id.sequence.to_le_bytes());
    out.extend(Timestamp::of(SystemTime::now()).millis().to_le_bytes());
    put_stamp(&mut out, Some(batch.at));
    out.push(part.clear.into());
    put_count(&mut out, changes.len());
    for change in changes {
        put_change(&mut out, change);
    }
    put_bytes(&mut out, &answer_text);
    Ok(out)
}

fn put_change(out: &mut Vec<u8>, change: &Change) {
    put_bytes(out, change.key.as_bytes());
    match &change.op {
        Op::Put {
            payload,
            expires_at,
        } => {
            let of_bytes = match payload.encoding {
                Encoding::Json => 0,
                Encoding::Bytes => OF_BYTES,
            };
            match change.written_at {
                None => out.push(PUT | of_bytes),
                Some(written) => {
                    out.push(PUT_WRITTEN | of_bytes);
                    put_stamp(out, Some(written));
                }
            }
            put_stamp(out, *expires_at);
            put_payload(out, payload);
        }
        Op::Touch { expires_at } => {
            out.push(TOUCH);
            put_stamp(out, *expires_at);
        }
        Op::Delete => out.push(match change.cause {
            Cause::Removed => DELETE,
            Cause::Expired => DELETE_EXPIRED,
        }),
    }
}

fn put_payload(out: &mut Vec<u8>, payload: &Payload) {
    out.extend(payload.schema.to_le_bytes());
    match payload.encoding {
        // White space around a value is not part of it, and lost in a snapshot.
        Encoding::Json => put_bytes(out, payload.bytes.trim_ascii()),
        Encoding::Bytes => put_bytes(out, base64_text::encode(&payload.bytes).as_bytes()),
    }
}

fn put_stamp(out: &mut Vec<u8>, time: Option<SystemTime>) {
    out.extend(Stamp::from(time).get().to_le_bytes());
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend((count as u64).to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend(bytes);
}

impl<'a> Frame<'a> {
    /// Reads a payload; `None` if this code did not write it.
    pub(super) fn read(payload: &'a [u8]) -> Option<Self> {
        let mut from = Reader::new(payload);
        let frame = match from.byte()? {
            BATCH => Self::Applied(read_applied(&mut from)?),
            ANNOUNCEMENT => Self::Announced(u128::from_le_bytes(from.array()?)),
            RENEWAL => Self::Renewed(Incarnation::new(from.number()?)),
            _ => return None,
        };
        from.is_at_end().then_some(frame)
    }
}

fn read_applied<'a>(from: &mut Reader<'a>) -> Option<Applied<'a>> {
    let writer = WriterId::new(u128::from_le_bytes(from.array()?));
    Some(Applied {
        id: BatchId::new(writer, from.number()?),
        committed_at: Timestamp::from_millis(i64::from_le_bytes(from.array()?)),
        at: from.stamp()?,
        clear: from.byte()? != 0,
        changes: (0..from.number()?)
            .map(|_| read_change(from))
            .collect::<Option<_>>()?,
        answer: serde_json::from_slice(from.bytes()?).ok()?,
    })
}

fn read_change<'a>(from: &mut Reader<'a>) -> Option<Become<'a>> {
    let key = from.text()?;
    let op = from.byte()?;
    let encoding = match op & OF_BYTES {
        0 => Encoding::Json,
        _ => Encoding::Bytes,
    };
    let what = match op & !OF_BYTES {
        PUT => read_put(from, None, encoding)?,
        PUT_WRITTEN => {
            let written = from.stamp()?;
            read_put(from, Some(written), encoding)?
        }
        TOUCH => What::Touch {
            expires: from.stamp()?,
        },
        DELETE => What::Delete(Cause::Removed),
        DELETE_EXPIRED => What::Delete(Cause::Expired),
        _ => return None,
    };
    Some(Become { key, what })
}

fn read_put(from: &mut Reader<'_>, written: Option<Stamp>, encoding: Encoding) -> Option<What> {
    let expires = from.stamp()?;
    let schema = u32::from_le_bytes(from.array()?);
    let text = from.bytes()?;
    Some(What::Put {
        written,
        expires,
        encoding,
        schema,
        offset: from.at - text.len(),
        bytes: u32::try_from(text.len()).ok()?,
    })
}

/// Takes fixed parts off the front of some bytes; none where they end early.
pub(super) struct Reader<'a> {
    whole: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(whole: &'a [u8]) -> Self {
        Self { whole, at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.whole.len()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.whole.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        Some(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    fn stamp(&mut self) -> Option<Stamp> {
        Some(Stamp::new(i64::from_le_bytes(self.array()?)))
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.take(usize::try_from(count).ok()?)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}
