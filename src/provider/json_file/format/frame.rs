//! The payloads of frames: a batch as it was applied, the digest of a snapshot that is
//! about to be put into place, or a new incarnation.

use std::time::SystemTime;

use bytes::Buf;

use super::base64_text;
use crate::{
    batch::{Batch, BatchId, Change, Committed, MapBatch, Op, WriterId},
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    journal::{put_bytes, read_bytes, read_text},
    provider::{json_file::index::Stamp, ledger},
    record::{Cause, Encoding, Payload, Revision, Timestamp},
};

const BATCH: u8 = 1;
const ANNOUNCEMENT: u8 = 2;
const RENEWAL: u8 = 3;

const PUT: u8 = 0;
const TOUCH: u8 = 1;
const DELETE: u8 = 2;
/// A put with the time at which the value was written.
const PUT_WRITTEN: u8 = 3;
/// A delete of an entry that has expired.
const DELETE_EXPIRED: u8 = 4;
/// Added to a put: the value is bytes, and its text is base64.
const OF_BYTES: u8 = 0x10;

/// A payload, parsed in place.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    Applied(Applied<'a>),
    /// The snapshot with this digest contains all earlier frames.
    Announced(u128),
    /// From here on, the map is in this incarnation.
    Renewed(Incarnation),
}

/// A batch as it was applied, without skipped changes.
#[derive(Debug)]
pub(crate) struct Applied<'a> {
    pub(crate) id: BatchId,
    /// By the clock of this machine.
    pub(crate) committed_at: Timestamp,
    pub(crate) answer: Committed,
    /// The time of the batch, by the clock of the writer.
    pub(crate) at: Stamp,
    pub(crate) clear: bool,
    pub(crate) changes: Vec<KeyChange<'a>>,
}

/// A change of a key.
#[derive(Debug)]
pub(crate) struct KeyChange<'a> {
    pub(crate) key: &'a str,
    pub(crate) effect: Effect<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect<'a> {
    Put(Put<'a>),
    Touch { expires: Stamp },
    Delete(Cause),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Put<'a> {
    /// When the value was written, if not at the time of the batch.
    pub(crate) written: Option<Stamp>,
    pub(crate) expires: Stamp,
    pub(crate) encoding: Encoding,
    pub(crate) schema: u32,
    pub(crate) text: &'a [u8],
}

impl Applied<'_> {
    pub(crate) fn revision(&self) -> Revision {
        self.answer.revision.unwrap_or_default()
    }
}

/// The payload that announces the snapshot with this digest.
pub(crate) fn announcement(digest: u128) -> Vec<u8> {
    let mut out = vec![ANNOUNCEMENT];
    out.extend(digest.to_le_bytes());
    out
}

/// The payload that sets the incarnation.
pub(crate) fn renewal(incarnation: Incarnation) -> Vec<u8> {
    let mut out = vec![RENEWAL];
    out.extend(incarnation.get().to_le_bytes());
    out
}

/// The payload for this part of a batch, without the changes that were skipped, and without
/// deletions of keys that are not stored. So each deletion leaves a tombstone, even if the
/// journal is replayed on a snapshot that it was compacted into, which lacks the key. Texts of
/// more than 4 GiB were refused earlier.
pub(crate) fn applied(
    batch: &Batch,
    part: &MapBatch,
    answer: &Committed,
    is_stored: impl Fn(&str) -> bool,
) -> Result<Vec<u8>> {
    let answer_text = serde_json::to_vec(answer).map_err(|error| {
        let message = "a stored value that a skipped change met is not text";
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
        // White space around a value is not part of it; snapshots drop it.
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

impl<'a> Frame<'a> {
    /// Parses a payload; `None` if this code did not write it.
    pub(crate) fn read(mut payload: &'a [u8]) -> Option<Self> {
        let from = &mut payload;
        let frame = match from.try_get_u8().ok()? {
            BATCH => Self::Applied(read_applied(from)?),
            ANNOUNCEMENT => Self::Announced(from.try_get_u128_le().ok()?),
            RENEWAL => Self::Renewed(Incarnation::new(from.try_get_u64_le().ok()?)),
            _ => return None,
        };
        from.is_empty().then_some(frame)
    }
}

fn read_applied<'a>(from: &mut &'a [u8]) -> Option<Applied<'a>> {
    let writer = WriterId::new(from.try_get_u128_le().ok()?);
    Some(Applied {
        id: BatchId::new(writer, from.try_get_u64_le().ok()?),
        committed_at: Timestamp::from_millis(from.try_get_i64_le().ok()?),
        at: read_stamp(from)?,
        clear: from.try_get_u8().ok()? != 0,
        changes: (0..from.try_get_u64_le().ok()?)
            .map(|_| read_change(from))
            .collect::<Option<_>>()?,
        answer: serde_json::from_slice(read_bytes(from)?).ok()?,
    })
}

fn read_change<'a>(from: &mut &'a [u8]) -> Option<KeyChange<'a>> {
    let key = read_text(from)?;
    let op = from.try_get_u8().ok()?;
    let effect = match op & !OF_BYTES {
        PUT | PUT_WRITTEN => Effect::Put(Put {
            written: match op & !OF_BYTES {
                PUT => None,
                _ => Some(read_stamp(from)?),
            },
            expires: read_stamp(from)?,
            encoding: match op & OF_BYTES {
                0 => Encoding::Json,
                _ => Encoding::Bytes,
            },
            schema: from.try_get_u32_le().ok()?,
            text: read_bytes(from)?,
        }),
        TOUCH => Effect::Touch {
            expires: read_stamp(from)?,
        },
        DELETE => Effect::Delete(Cause::Removed),
        DELETE_EXPIRED => Effect::Delete(Cause::Expired),
        _ => return None,
    };
    Some(KeyChange { key, effect })
}

fn read_stamp(from: &mut &[u8]) -> Option<Stamp> {
    from.try_get_i64_le().ok().map(Stamp::new)
}
