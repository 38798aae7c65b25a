//! Writes the journal of a store: creates it, appends frames, and replaces a broken one.

use super::{
    files::{Files, Folder},
    format::{
        journal::{Header, Parsed},
        trailer,
    },
    opening::damage,
    store::{Journal, Store},
};
use crate::{
    disk::{fault::fault, file::OpenFile},
    error::Result,
    incarnation::Incarnation,
    journal::{
        frame,
        writing::{put, write},
    },
};

impl Store {
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
    /// 1. If there is no meta file yet, create one that describes no entries. It gives the map
    ///    its incarnation. A crash leaves it without effect: no map knows that incarnation.
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

    /// Replaces a broken journal with a copy of all acknowledged batches and nothing else, so the
    /// batch of unknown outcome is not applied. A crash before the replacement may leave that
    /// batch applied instead. Either way the outcome is final, and no caller got another answer.
    ///
    /// Nothing is appended to the new file before the folder is synced: otherwise a crash could
    /// bring back the old file, without the batches that were acknowledged in the new one.
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
        match Parsed::in_bytes(bytes) {
            Parsed::Journal {
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
    /// The file is opened for each frame. A file that stays open would not reveal that
    /// the folder or the permission is gone, or that the locked file was removed.
    pub(super) fn append(
        &mut self,
        folder: &Folder,
        journal: Journal,
        payload: &[u8],
    ) -> Result<()> {
        folder.check_in_place()?;
        let path = &self.files.journal;
        let frame = frame(journal.id, journal.frames, payload);
        let mut opened = OpenFile::open_to_append(&*folder.disk, path)?;
        if opened.size()? != journal.bytes {
            return Err(damage::edited(path));
        }
        let bytes = journal.bytes + frame.len() as u64;
        let written = write(&mut *opened.file, path, &frame, bytes);
        self.journal = Some(match &written {
            Ok(()) => Journal {
                bytes,
                frames: journal.frames + 1,
                ..journal
            },
            Err(_) => Journal {
                is_broken: true,
                ..journal
            },
        });
        written
    }
}

/// Replaces the journal with these bytes, durably.
pub(super) fn put_journal(folder: &Folder, files: &Files, bytes: &[u8]) -> Result<()> {
    folder.check_in_place()?;
    put(&*folder.disk, &files.journal, &files.snapshot, bytes)
}

/// Removes an obsolete journal.
pub(super) fn remove_journal(folder: &Folder, files: &Files) -> Result<()> {
    let removed = folder.disk.remove(&files.journal);
    removed.map_err(|error| fault("remove", &files.journal, error))?;
    folder.sync()
}
