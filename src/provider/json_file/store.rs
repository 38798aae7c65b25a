//! An open map: its index, its journal, and the writers that it remembers.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    disk::{
        fault::fault,
        file::{Looks, OpenFile, Replacement},
    },
    files::{Files, Folder},
    format::{
        journal::{self, Header, frame},
        trailer,
    },
    index::{Entry, Index},
    opening::damage,
    values::Values,
};
use crate::{
    error::Result,
    incarnation::Incarnation,
    name::MapName,
    provider::ledger::{Tombstones, Writers},
    record::{Record, Revision, Timestamp},
};

/// The maximum number of writers of earlier openings of the folder that are remembered.
const MAX_EARLIER: usize = 8;

/// For how long a writer of an earlier opening is remembered after its last batch.
const REMEMBERED: Duration = Duration::from_secs(72 * 60 * 60);

/// About how long a tombstone is in a meta file.
const TOMBSTONE_BYTES: u64 = 128;

/// An open map. All of this can be read from its files again.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) map: MapName,
    pub(super) files: Files,
    pub(super) index: Index,
    pub(super) tombstones: Tombstones,
    pub(super) writers: Writers,
    /// `None` before the first commit. It is durable before a caller learns of it.
    pub(super) incarnation: Option<Incarnation>,
    /// The revision of the last commit.
    pub(super) last: Revision,
    /// The revision of entries that another program wrote into the snapshot.
    pub(super) loaded: Revision,
    /// The digest of the current snapshot, and how it looks.
    pub(super) snapshot: Option<(u128, Looks)>,
    /// The checksum of the current meta file.
    pub(super) meta: Option<u128>,
    pub(super) journal: Option<Journal>,
    /// Files are being replaced. If that fails, this store may differ from them and has to
    /// be read again.
    pub(super) is_stale: bool,
    /// The journal is not compacted before it has this size.
    pub(super) compact_at: u64,
}

/// The journal that batches are appended to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Journal {
    pub(super) id: u64,
    /// The size of the part that is known to be durable.
    pub(super) bytes: u64,
    pub(super) frames: u64,
    /// A write or a sync failed. The content beyond `bytes` is unknown, and a later sync
    /// would prove nothing, so this file is not written to again.
    pub(super) is_broken: bool,
}

impl Store {
    /// The files that values are read from.
    pub(super) fn values<'a>(&'a self, folder: &'a Folder) -> Values<'a> {
        Values {
            disk: &*folder.disk,
            files: &self.files,
            snapshot: self.snapshot.map(|(_, looks)| looks),
        }
    }

    /// The records of these entries.
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

    /// A journal that can be written to: the current one, a new one, or a new copy of a
    /// broken one.
    pub(super) fn writable_journal(&mut self, folder: &Folder) -> Result<Journal> {
        match self.journal {
            Some(journal) if journal.is_broken => self.renew_journal(folder, journal),
            Some(journal) => Ok(journal),
            None => self.start_journal(folder),
        }
    }

    /// Creates a journal without frames, and marks the meta file. The journal replaces an
    /// older one as a whole, so a crash can leave torn frames but no torn header. Three
    /// steps, each durable before the next:
    ///
    /// 1. If there is no meta file yet, create one that describes no entries. It gives the
    ///    map its incarnation. A crash leaves it without effect: no map has learned of that
    ///    incarnation.
    /// 2. Create the journal. A crash leaves it without frames, and the next open removes
    ///    it.
    /// 3. Mark the meta file: a journal belongs to it. A crash leaves the mark, or a part
    ///    of it, beside a journal without frames; the next open removes the mark, and then
    ///    the journal.
    ///
    /// So no crash leaves a mark without a journal, or a journal with frames beside a meta
    /// file without a mark. If step 1 or 2 fails, the next attempt repeats it. If step 3
    /// fails, the files are read again first, which removes the rest of the mark.
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

    /// Replaces a broken journal with a copy of all acknowledged batches and nothing else,
    /// so the batch of unknown outcome is not applied. After a crash before the
    /// replacement, it may be found applied instead. In either case it is decided once, and
    /// no caller was told otherwise.
    ///
    /// Nothing is appended to the new file before the folder is synced: otherwise a crash
    /// could bring back the old file, without what was acknowledged in the new one.
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

    /// Appends a frame and syncs it.
    ///
    /// The file is opened for each frame. A file that stays open would not show that the
    /// folder or the permission is gone, nor that the lock is held on a file that was
    /// removed.
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
            // Nothing is written to this file again. If it lacks a part of the frame now,
            // the frame never becomes complete, and a torn frame is not applied. Otherwise,
            // or if the size is unknown, the frame may be complete.
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

    /// The writers that may still send a batch, or repeat one.
    ///
    /// Those that wrote since the folder was opened may still be open. Those of earlier
    /// openings wrote under a lock that they no longer hold, so they have ended, except for
    /// one that reopened the folder between a batch and its repeat. So only the latest few
    /// of them are remembered, for some days.
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

/// Replaces the journal with one of these bytes, durably.
pub(super) fn put_journal(folder: &Folder, files: &Files, bytes: &[u8]) -> Result<()> {
    folder.check_in_place()?;
    let path = &files.journal;
    let mut file = Replacement::create(&*folder.disk, path, &files.snapshot)?;
    file.write(bytes)?;
    file.sync()?;
    file.replace()?;
    folder.sync()
}

/// Removes an obsolete journal.
pub(super) fn remove_journal(folder: &Folder, files: &Files) -> Result<()> {
    let removed = folder.disk.remove(&files.journal);
    removed.map_err(|error| fault("remove", &files.journal, error))?;
    folder.sync()
}
