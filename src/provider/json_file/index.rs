//! What is known in memory of each stored entry: all but its value.

use std::{collections::BTreeMap, iter::Peekable, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    load::PAGE_RECORDS,
    record::{Payload, Record, Revision, Timestamp},
};

/// A page of large values ends early: its values are held at once.
const PAGE_BYTES: u64 = 1 << 20;

/// The entries of a map, in the order in which they are written to a snapshot.
pub(super) type Index = BTreeMap<Arc<str>, Entry>;

/// A stored entry, and where the text of its value is: 40 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) revision: Revision,
    pub(super) expires: Stamp,
    pub(super) updated: Stamp,
    pub(super) place: Place,
}

impl Entry {
    /// The entry as it comes up, with this value.
    pub(super) fn record(&self, key: &Arc<str>, text: bytes::Bytes) -> Record {
        let payload = Payload::json(text).with_schema(self.place.schema);
        Record::new(key.clone(), Some(payload), self.revision)
            .with_expires_at(self.expires.time())
            .with_updated_at(self.updated.time())
    }
}

/// Entries whose values are read together.
pub(super) struct Page<'a> {
    pub(super) entries: Vec<(&'a Arc<str>, &'a Entry)>,
    /// There is no other one after it.
    pub(super) is_last: bool,
}

impl<'a> Page<'a> {
    /// The next of these entries.
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

/// Where the text of a value is. The shape of the value is here to fill what
/// would be padding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    offset_and_file: u64,
    pub(super) bytes: u32,
    pub(super) schema: u32,
}

/// Which of a map's files holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Snapshot,
    Journal,
}

impl Place {
    pub(super) fn new(source: Source, offset: u64, bytes: u32, schema: u32) -> Self {
        Self {
            offset_and_file: offset << 1 | u64::from(source == Source::Journal),
            bytes,
            schema,
        }
    }

    pub(super) fn source(self) -> Source {
        if self.offset_and_file & 1 == 1 {
            Source::Journal
        } else {
            Source::Snapshot
        }
    }

    pub(super) fn offset(self) -> u64 {
        self.offset_and_file >> 1
    }

    pub(super) fn end(self) -> u64 {
        self.offset() + u64::from(self.bytes)
    }
}

/// A [`Timestamp`], or none, in 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<i64>", into = "Option<i64>")]
pub(super) struct Stamp(i64);

impl Stamp {
    pub(super) const NONE: Self = Self(i64::MIN);

    /// The time; also none if it is so far away that this system cannot tell.
    pub(super) fn time(self) -> Option<SystemTime> {
        let millis: i64 = Option::from(self)?;
        Timestamp::from_millis(millis).time()
    }

    /// The number in a journal.
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
