//! Detects files that were replaced while their map was open.
//!
//! Another program may replace the files with an older copy, or remove them. So before a
//! commit and a load, the store is compared with its files; if they differ, they are read
//! again, as at an open. The writers that they remember then decide whether commits were
//! lost. Nothing is written to them before that.
//!
//! An edit by hand is not an older copy: the snapshot does not match its meta file, or its
//! journal. It is reported, and nothing is overwritten.

use super::damage;
use crate::{
    disk::file::OpenFile,
    error::{ErrorKind, Result},
    provider::json_file::{
        files::Folder,
        format::{
            journal::{ID_ENDS, id_in},
            snapshot::Snapshot,
            trailer::{self, Mark, Trailer},
        },
        store::Store,
    },
};

impl Store {
    /// Brings this store up to date with its files.
    ///
    /// # Errors
    ///
    /// `Corrupt` if they were edited or are incomplete; and the errors of reading them. The
    /// store is unchanged.
    pub(crate) fn keep_up(&mut self, folder: &Folder) -> Result<()> {
        match self.check_files(folder) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                *self = Self::reopen(folder, &self.map)?;
                Ok(())
            }
            checked => checked,
        }
    }

    /// Checks that the files are those of this store. Nothing may be appended to other
    /// files: it could not be read again.
    ///
    /// A snapshot is identified by its size and modification time, a meta file by its checksum,
    /// and a journal by its id and its size. This tells any two states of a map apart: a
    /// compaction replaces the first two, and each commit in between makes the journal longer.
    /// The id is for a copy of a map that was changed differently after the copy.
    ///
    /// # Errors
    ///
    /// `Corrupt` if they are other files; and the errors of examining them.
    pub(crate) fn check_files(&mut self, folder: &Folder) -> Result<()> {
        let files = if !self.knows_snapshot(folder)? {
            &self.files.snapshot
        } else if !self.knows_meta(folder)? {
            &self.files.meta
        } else if !self.knows_journal(folder)? {
            &self.files.journal
        } else {
            return Ok(());
        };
        Err(damage::edited(files).on_map(&self.map))
    }

    fn knows_snapshot(&mut self, folder: &Folder) -> Result<bool> {
        let (disk, path) = (&*folder.disk, &self.files.snapshot);
        let Some(mut file) = OpenFile::open_if_there(disk, path)? else {
            return Ok(self.snapshot.is_none());
        };
        let looks = file.looks()?;
        let Some((digest, known)) = self.snapshot else {
            return Ok(false);
        };
        if known == looks {
            return Ok(true);
        }
        // A file with the same content is the same, even if it was touched.
        let found = Snapshot::read(disk, path)?.filter(|found| found.digest == digest);
        if let Some(same) = &found {
            self.snapshot = Some((digest, same.looks));
        }
        Ok(found.is_some())
    }

    /// Without a journal there must be no mark.
    fn knows_meta(&self, folder: &Folder) -> Result<bool> {
        let file = OpenFile::open_if_there(&*folder.disk, &self.files.meta)?;
        let Some(mut file) = file else {
            return Ok(self.meta.is_none());
        };
        let size = file.size()?;
        let start = size.saturating_sub(trailer::MAX_BYTES);
        let found = Trailer::read(&file.read(start, size - start)?);
        Ok(found.is_some_and(|found| {
            self.meta == Some(found.checksum)
                && (self.journal.is_some() || found.mark == Mark::Absent)
        }))
    }

    fn knows_journal(&self, folder: &Folder) -> Result<bool> {
        let found = OpenFile::open_if_there(&*folder.disk, &self.files.journal)?;
        let (known, mut file) = match (self.journal, found) {
            (Some(known), Some(file)) => (known, file),
            (known, found) => return Ok(known.is_none() && found.is_none()),
        };
        let size = file.size()?;
        // The size of a broken journal is unknown.
        if size < known.bytes || size > known.bytes && !known.is_broken {
            return Ok(false);
        }
        Ok(id_in(&file.read(0, ID_ENDS)?) == Some(known.id))
    }
}
