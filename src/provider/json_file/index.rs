//! The index of an open map: everything about each entry except its value.

use std::{collections::BTreeMap, iter::Peekable, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::format::base64_text;
use crate::{
    error::{Error, ErrorKind, Result},
    load::PAGE_RECORDS,
    record::{Encoding, Payload, Record, Revision, Timestamp},
};

/// The size at which a page of large values ends early, because its values are in memory
/// at the same time.
const PAGE_BYTES: u64 = 1 << 20;

/// The entries of a map, in the order of a snapshot.
pub(super) type Index = BTreeMap<Arc<str>, Entry>;

/// A stored entry, and the place of its value: 40 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) revision: Revision,
    pub(super) expires: Stamp,
    pub(super) updated: Stamp,
    pub(super) place: Place,
}

impl Entry {
    /// The record of this entry, whose value has this text.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the value is bytes and the text is not base64.
    pub(super) fn record(&self, key: &Arc<str>, text: bytes::Bytes) -> Result<Record> {
        let payload = match self.place.encoding() {
            Encoding::Json => Payload::json(text),
            Encoding::Bytes => {
                let bytes = base64_text::decode(&text).ok_or_else(|| {
                    let message = "a stored value of bytes is not base64; nothing was overwritten";
                    Error::new(ErrorKind::Corrupt, message).on_keys([key.clone()])
                })?;
                Payload::binary(bytes)
            }
        };
        let payload = payload.with_schema(self.place.schema);
        let record = Record::new(key.clone(), Some(payload), self.revision)
            .with_expires_at(self.expires.time())
            .with_updated_at(self.updated.time());
        Ok(record)
    }
}

/// Entries whose values are read together.
pub(super) struct Page<'a> {
    pub(super) entries: Vec<(&'a Arc<str>, &'a Entry)>,
    /// Whether no other page follows.
    pub(super) is_last: bool,
}

impl<'a> Page<'a> {
    /// Takes the next entries.
    pub(super) fn next(
        from: &mut Peekable<impl Iterator<Item = (&'a Arc<str>, &'a Entry)>>,
    ) -> Self {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < PAGE_RECORDS && bytes < PAGE_BYTES {
            let Some((key, entry)) = from.next() else {
                break;
            };
            bytes += key.len() as u64 + u64::from(entry.place.bytes);
            entries.push((key, entry));
        }
        let is_last = from.peek().is_none();
        Self { entries, is_last }
    }
}

/// The place of the text of a value. The encoding and the schema version are stored here
/// because they use space that would be padding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The offset, and in the two lowest bits the encoding and the file.
    packed: u64,
    pub(super) bytes: u32,
    pub(super) schema: u32,
}

const IN_JOURNAL: u64 = 1;
const IS_BASE64: u64 = 2;

/// Which of a map's files holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Snapshot,
    Journal,
}

impl Place {
    /// The place of a JSON value of schema version 0.
    pub(super) fn new(source: Source, offset: u64, bytes: u32) -> Self {
        let file = match source {
            Source::Snapshot => 0,
            Source::Journal => IN_JOURNAL,
        };
        Self {
            packed: offset << 2 | file,
            bytes,
            schema: 0,
        }
    }

    /// Sets the encoding and the schema version.
    pub(super) fn with_form(mut self, encoding: Encoding, schema: u32) -> Self {
        match encoding {
            Encoding::Json => self.packed &= !IS_BASE64,
            Encoding::Bytes => self.packed |= IS_BASE64,
        }
        Self { schema, ..self }
    }

    pub(super) fn encoding(self) -> Encoding {
        if self.packed & IS_BASE64 == 0 {
            Encoding::Json
        } else {
            Encoding::Bytes
        }
    }

    pub(super) fn source(self) -> Source {
        if self.packed & IN_JOURNAL == 0 {
            Source::Snapshot
        } else {
            Source::Journal
        }
    }

    /// The place in a file that has this one behind so many other bytes.
    pub(super) fn behind(self, bytes: u64) -> Self {
        Self {
            packed: self.packed + (bytes << 2),
            ..self
        }
    }

    pub(super) fn offset(self) -> u64 {
        self.packed >> 2
    }

    pub(super) fn end(self) -> u64 {
        self.offset() + u64::from(self.bytes)
    }
}

/// An optional [`Timestamp`] in 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<i64>", into = "Option<i64>")]
pub(super) struct Stamp(i64);

impl Stamp {
    pub(super) const NONE: Self = Self(i64::MIN);

    /// The time; `None` also if it is beyond the range of this system.
    pub(super) fn time(self) -> Option<SystemTime> {
        let millis: i64 = Option::from(self)?;
        Timestamp::from_millis(millis).time()
    }

    /// The number that a journal stores.
    pub(super) fn get(self) -> i64 {
        self.0
    }

    pub(super) fn new(number: i64) -> Self {
        Self(number)
    }
}

impl From<Option<i64>> for Stamp {
    fn from(millis: Option<i64>) -> Self {
        millis.map_or(Self::NONE, |millis| Self(millis.max(i64::MIN + 1)))
    }
}

impl From<Stamp> for Option<i64> {
    fn from(stamp: Stamp) -> Self {
        (stamp != Stamp::NONE).then_some(stamp.0)
    }
}

impl From<Option<SystemTime>> for Stamp {
    fn from(time: Option<SystemTime>) -> Self {
        time.map(|time| Timestamp::of(time).millis()).into()
    }
}
