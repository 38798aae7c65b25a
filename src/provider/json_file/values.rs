//! Reads the texts of values from the files.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::{
    files::Files,
    index::{Entry, Place, Source},
    opening::damage,
};
use crate::{
    codec::json::layout::on_one_line,
    disk::{
        Disk,
        file::{Looks, OpenFile},
    },
    error::{Error, Result},
    provider::ledger::StoredRecord,
    record::{Record, Revision},
};

/// Up to this distance between two values, one read of both is cheaper than two reads.
const MAX_GAP: u64 = 1 << 10;

/// A journal up to this size is read into memory to be compacted.
const MAX_IN_MEMORY: u64 = 64 << 20;

/// The files that values are read from.
#[derive(Clone)]
pub(super) struct Values<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) files: &'a Files,
    /// The size and the modification time of the snapshot, if there is one.
    pub(super) snapshot: Option<Looks>,
    /// The content of the journal, if it was read as a whole.
    pub(super) journal: Option<Bytes>,
}

impl Values<'_> {
    /// Reads the journal, of which so many bytes are known, as a whole, if it is not too
    /// large. Reading all of its values in the order of the keys is much faster then, because
    /// that is not the order in the file.
    pub(super) fn with_journal_in_memory(mut self, bytes: u64) -> Result<Self> {
        if bytes <= MAX_IN_MEMORY {
            let mut file = OpenFile::open(self.disk, &self.files.journal)?;
            self.journal = Some(file.read(0, bytes)?.into());
        }
        Ok(self)
    }

    /// Reads one text.
    pub(super) fn read_one(&self, place: Place) -> Result<Bytes> {
        let mut texts = self.read(&[place])?;
        Ok(texts.pop().unwrap_or_default())
    }

    /// Reads texts, in the order of the places.
    pub(super) fn read(&self, places: &[Place]) -> Result<Vec<Bytes>> {
        let mut texts = vec![Bytes::new(); places.len()];
        for source in [Source::Snapshot, Source::Journal] {
            let mut here: Vec<usize> = (0..places.len())
                .filter(|&n| places[n].source() == source)
                .collect();
            here.sort_unstable_by_key(|&n| places[n].offset());
            if !here.is_empty() {
                self.read_from(source, places, &here, &mut texts)?;
            }
        }
        Ok(texts)
    }

    /// Reads texts that are close together in one read. `here` is sorted by offset.
    fn read_from(
        &self,
        source: Source,
        places: &[Place],
        here: &[usize],
        texts: &mut [Bytes],
    ) -> Result<()> {
        if let (Source::Journal, Some(journal)) = (source, &self.journal) {
            for &n in here {
                texts[n] = text_at(journal, 0, places[n]);
            }
            return Ok(());
        }
        let mut file = OpenFile::open(self.disk, self.files.of(source))?;
        if source == Source::Snapshot {
            self.check_looks(file.looks()?)?;
        }
        let is_close = |a: &usize, b: &usize| places[*b].offset() <= places[*a].end() + MAX_GAP;
        for run in here.chunk_by(is_close) {
            let (Some(&first), Some(&last)) = (run.first(), run.last()) else {
                continue;
            };
            let start = places[first].offset();
            let bytes = Bytes::from(file.read(start, places[last].end() - start)?);
            for &n in run {
                texts[n] = text_at(&bytes, start, places[n]);
            }
        }
        Ok(())
    }

    /// Checks that the snapshot is still the indexed one. In another snapshot, other
    /// values are at these places.
    fn check_looks(&self, now: Looks) -> Result<()> {
        if self.snapshot == Some(now) {
            return Ok(());
        }
        Err(damage::edited(&self.files.snapshot))
    }
}

/// A stored entry whose value has not been read from its file.
pub(super) struct LazyRecord<'a> {
    values: Values<'a>,
    entry: (&'a Arc<str>, &'a Entry),
}

impl<'a> LazyRecord<'a> {
    pub(super) fn new(values: Values<'a>, entry: (&'a Arc<str>, &'a Entry)) -> Self {
        Self { values, entry }
    }
}

impl StoredRecord<Error> for LazyRecord<'_> {
    fn version(&self) -> (Revision, Option<SystemTime>) {
        let (_, entry) = self.entry;
        (entry.revision, entry.expires.time())
    }

    fn into_record(self) -> Result<Record> {
        let (key, entry) = self.entry;
        entry.record(key, self.values.read_one(entry.place)?)
    }
}

/// The text at this place, in the bytes of a file from `start` on.
fn text_at(bytes: &Bytes, start: u64, place: Place) -> Bytes {
    let at = as_size(place.offset() - start);
    without_breaks(bytes.slice(at..at + place.bytes as usize))
}

/// The whole file was read into memory before, so its offsets fit.
fn as_size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Removes line breaks that a person added to a value.
fn without_breaks(bytes: Bytes) -> Bytes {
    match std::str::from_utf8(&bytes).map(on_one_line) {
        Ok(std::borrow::Cow::Owned(text)) => Bytes::from(text),
        _ => bytes,
    }
}
