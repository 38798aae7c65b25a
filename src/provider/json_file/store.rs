//! A map that is open: its index, its journal, and the writers it knows.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    damage,
    fault::{corrupt, fault},
    files::{Files, Folder},
    frame::Frame,
    index::{Entry, Index},
    io::{Looks, OpenFile, Replacement},
    journal::{self, Header, frame},
    trailer,
    values::Values,
};
use crate::{
    error::{Error, Result},
    incarnation::Incarnation,
    name::MapName,
    provider::ledger::{Tombstones, Writers},
    record::{Record, Revision, Timestamp},
};

/// How many writers of earlier openings of the folder are remembered.
const MAX_EARLIER: usize = 8;

/// How long a writer of an earlier opening is remembered after its last batch.
const REMEMBERED: Duration = Duration::from_secs(72 * 60 * 60);

/// About how long a tombstone is in a meta file.
const TOMBSTONE_BYTES: u64 = 128;

/// A map that is open. All of it can be read from its files again.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) map: MapName,
    pub(super) files: Files,
    pub(super) index: Index,
    pub(super) tombstones: Tombstones,
    pub(super) writers: Writers,
    /// None before the first commit. One that was told is on the disk.
    pub(super) incarnation: Option<Incarnation>,
    /// The last revision that was given.
    pub(super) last: Revision,
    /// The revision of entries that someone else wrote into the snapshot.
    pub(super) loaded: Revision,
    /// The digest of the snapshot that is in its place, and how it looks.
    pub(super) snapshot: Option<(u128, Looks)>,
    /// The checksum of the meta file that is in its place.
    pub(super) meta: Option<u128>,
    pub(super) journal: Option<Journal>,
    /// The files are being moved about: if that fails, what is known here may
    /// not be so, and has to be read again.
    pub(super) is_stale: bool,
    /// The journal is not compacted before it is this long.
    pub(super) compact_at: u64,
}

/// The journal that is being written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Journal {
    pub(super) id: u64,
    /// How long it is, as far as it is known to be safe on the disk.
    pub(super) bytes: u64,
    pub(super) frames: u64,
    /// A write or a sync failed. What is in the file beyond `bytes`, and what
    /// a later sync would mean, cannot be known: it is not written to again.
    pub(super) is_broken: bool,
}

impl Store {
    /// Where the values are read from.
    pub(super) fn values<'a>(&'a self, folder: &'a Folder) -> Values<'a> {
        Values {
            disk: &*folder.disk,
            files: &self.files,
            snapshot: self.snapshot.map(|(_, looks)| looks),
        }
    }

    /// These entries, as they come up.
    pub(super) fn records(
        &self,
        folder: &Folder,
        entries: &[(&Arc<str>, &Entry)],
    ) -> Result<Vec<Record>> {
        let places: Vec<_> = entries.iter().map(|(_, entry)| entry.place).collect();
        let texts = self.values(folder).read(&places)?;
        let records = entries.iter().zip(texts);
        let records = records.map(|((key, entry), text)| entry.record(key, text));
        let records: Result<Vec<_>> = records.collect();
        records.map_err(|error| error.on_map(&self.map))
    }

    /// Makes what a frame says of the map true of what is known here.
    pub(super) fn replay(&mut self, payload: &[u8], start: u64) -> Result<()> {
        match Frame::read(payload) {
            Some(Frame::Applied(applied)) => {
                applied.apply(&mut self.index, &mut self.tombstones, start);
                self.last = self.last.max(applied.revision());
                let (id, at) = (applied.id, applied.committed_at);
                self.writers.remember(id, at, applied.answer);
                Ok(())
            }
            Some(Frame::Announced(_)) => Ok(()),
            Some(Frame::Renewed(incarnation)) => {
                self.incarnation = Some(incarnation);
                Ok(())
            }
            None => Err(self.senseless(start)),
        }
    }

    pub(super) fn senseless(&self, offset: u64) -> Error {
        let problem = format!("what is at byte {offset} was not written by this program");
        corrupt(&self.files.journal, &problem, "put back a copy of it").on_map(&self.map)
    }

    /// A journal that can be written to: the one there is, a new one, or a new
    /// copy of one that is broken.
    pub(super) fn writable_journal(&mut self, folder: &Folder) -> Result<Journal> {
        match self.journal {
            Some(journal) if journal.is_broken => self.renew_journal(folder, journal),
            Some(journal) => Ok(journal),
            None => self.start_journal(folder),
        }
    }

    /// A journal with no frames takes its place whole, so that a torn frame is
    /// the worst that a crash leaves; and the meta file is marked. Three steps,
    /// each safe on the disk before the next:
    ///
    /// 1. Where there is no meta file yet, one takes its place that says nothing
    ///    of any entry. It gives the map its incarnation. A crash leaves it, and it
    ///    changes nothing: no map has heard of that incarnation.
    /// 2. The journal takes its place. A crash leaves one without frames, which
    ///    is removed when the map is opened.
    /// 3. The meta file is marked: a journal goes with it. A crash leaves a part
    ///    of the mark, or all of it, beside a journal without frames; then the mark
    ///    is taken off before the journal is removed.
    ///
    /// So a mark without a journal is not what a crash leaves, and neither is a
    /// journal with frames and a meta file without a mark. If the first or the
    /// second step fails, the next try takes it anew; if the third does, the files
    /// are read again first, which takes off what is there of the mark.
    fn start_journal(&mut self, folder: &Folder) -> Result<Journal> {
        if self.meta.is_none() {
            let digest = self.snapshot.map(|(digest, _)| digest);
            let incarnation = self.incarnation.or_else(|| Some(Incarnation::random()));
            self.meta = Some(self.put_meta(folder, (digest, 0), incarnation, &[])?);
            self.incarnation = incarnation;
        }
        let journal = self.put_new_journal(folder)?;
        self.is_stale = true;
        trailer::add_mark(&*folder.disk, &self.files.meta)?;
        self.journal = Some(journal);
        self.is_stale = false;
        Ok(journal)
    }

    fn put_new_journal(&self, folder: &Folder) -> Result<Journal> {
        let header = Header {
            id: rand::random_range(1..=u64::MAX),
            map: self.map.to_string(),
            snapshot: self.snapshot.map(|(digest, _)| digest),
            meta: self.meta,
            loaded: self.loaded,
        };
        let bytes = header.to_bytes();
        put_journal(folder, &self.files, &bytes)?;
        Ok(Journal {
            id: header.id,
            bytes: bytes.len() as u64,
            frames: 0,
            is_broken: false,
        })
    }

    /// Puts a new file in the place of a broken one, with all that was
    /// acknowledged and nothing else: the batch whose outcome is unknown is
    /// thereby not applied. Should there be a crash before the new file is in
    /// its place, the batch may be found applied instead; in either case it is
    /// decided once, and nobody was told otherwise.
    ///
    /// The new file is not written to before the folder was synced: after a
    /// crash the old file might be back in its place, and what was
    /// acknowledged in the new one gone.
    fn renew_journal(&mut self, folder: &Folder, broken: Journal) -> Result<Journal> {
        let mut file = OpenFile::open(&*folder.disk, &self.files.journal)?;
        let bytes = file.read(0, broken.bytes)?;
        self.check_copy(&bytes, broken)?;
        put_journal(folder, &self.files, &bytes)?;
        let journal = Journal {
            is_broken: false,
            ..broken
        };
        self.journal = Some(journal);
        Ok(journal)
    }

    fn check_copy(&self, bytes: &[u8], broken: Journal) -> Result<()> {
        match journal::Found::in_bytes(bytes) {
            journal::Found::Journal {
                header,
                payloads,
                end,
            } if header.id == broken.id
                && payloads.len() as u64 == broken.frames
                && end == bytes.len() =>
            {
                Ok(())
            }
            _ => Err(self.senseless(0)),
        }
    }

    /// Writes a frame and makes it safe on the disk.
    ///
    /// The file is opened anew each time: if the folder went away, or the
    /// permission, the file that is still open would not tell; nor would the
    /// lock, if it is held on a file that was removed.
    pub(super) fn append(
        &mut self,
        folder: &Folder,
        journal: Journal,
        payload: &[u8],
    ) -> Result<()> {
        folder.check_in_place()?;
        let bytes = frame(journal.id, journal.frames, payload);
        let mut opened = OpenFile::open_to_append(&*folder.disk, &self.files.journal)?;
        if opened.size()? != journal.bytes {
            return Err(damage::edited(&self.files.journal));
        }
        let mut file = opened.file;
        let whole = journal.bytes + bytes.len() as u64;
        if let Err(error) = file.append(&bytes) {
            self.break_journal();
            let error = fault("write to", &self.files.journal, error);
            // Nothing is written to this file again. If it lacks a part of the
            // frame now, the frame never becomes whole, and a torn frame is
            // not applied. If nothing seems to be missing, or that cannot be
            // told, it may be whole.
            let is_torn = file.size().is_ok_and(|size| size < whole);
            return Err(if is_torn {
                error
            } else {
                error.outcome_unknown()
            });
        }
        if let Err(error) = file.sync() {
            self.break_journal();
            return Err(fault("sync", &self.files.journal, error).outcome_unknown());
        }
        self.journal = Some(Journal {
            bytes: whole,
            frames: journal.frames + 1,
            ..journal
        });
        Ok(())
    }

    fn break_journal(&mut self) {
        if let Some(journal) = &mut self.journal {
            journal.is_broken = true;
        }
    }

    /// Whether the journal is longer than what a compaction writes, so that compactions
    /// write no more than a small multiple of what was committed.
    pub(super) fn is_outgrown(&self) -> bool {
        let journal = self.journal.map_or(0, |journal| journal.bytes);
        let snapshot = self.snapshot.map_or(0, |(_, looks)| looks.size);
        let tombstones = self.tombstones.len() as u64 * TOMBSTONE_BYTES;
        journal >= self.compact_at.max(snapshot + tombstones)
    }

    /// The writers that may still send something, or send it again.
    ///
    /// Those that wrote since the folder was opened may be open still. Those of
    /// earlier openings wrote under a lock that they no longer hold, and have
    /// ended, but for one that opened the folder anew between a batch and its
    /// repeat. So the latest few are remembered, for some days.
    pub(super) fn recent_writers(&self, folder: &Folder) -> Writers {
        let of_now = folder.writers.lock();
        let oldest = SystemTime::now().checked_sub(REMEMBERED);
        let oldest = Timestamp::of(oldest.unwrap_or(SystemTime::UNIX_EPOCH));
        let earlier = self
            .writers
            .iter()
            .filter(|(writer, _)| !of_now.contains(writer));
        let mut earlier: Vec<_> = earlier.map(|(writer, last)| (last.at, writer)).collect();
        earlier.retain(|(at, _)| *at >= oldest);
        earlier.sort_unstable_by(|a, b| b.cmp(a));
        earlier.truncate(MAX_EARLIER);
        let mut recent = self.writers.clone();
        recent.retain(|writer, last| {
            of_now.contains(&writer) || earlier.contains(&(last.at, writer))
        });
        recent
    }
}

/// Puts a journal of these bytes in its place, and makes it safe there.
pub(super) fn put_journal(folder: &Folder, files: &Files, bytes: &[u8]) -> Result<()> {
    folder.check_in_place()?;
    let path = &files.journal;
    let mut file = Replacement::create(&*folder.disk, path, &files.snapshot)?;
    file.write(bytes)?;
    file.sync()?;
    file.replace()?;
    folder.sync()
}

/// Removes a journal of which nothing is needed.
pub(super) fn remove_journal(folder: &Folder, files: &Files) -> Result<()> {
    let removed = folder.disk.remove(&files.journal);
    removed.map_err(|error| fault("remove", &files.journal, error))?;
    folder.sync()
}
