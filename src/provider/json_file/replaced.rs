//! Files that were replaced while their map was open.
//!
//! Another program may put an older copy of the files in their place, or remove
//! them. So before a commit and a load, what is known of a map is compared with the
//! files; and where they differ, they are read anew, as at an open. What they
//! remember of the writers then decides whether commits were lost, and nothing was
//! written to them before that.
//!
//! An edit by hand is not a copy of another time: the snapshot does not fit its
//! meta file, or its journal. It is reported, and nothing is overwritten.

use super::{
    damage,
    files::Folder,
    io::OpenFile,
    journal::{ID_ENDS, id_in},
    snapshot::Snapshot,
    store::Store,
    trailer::{self, Mark, Trailer},
};
use crate::error::{ErrorKind, Result};

impl Store {
    /// Sees to it that what is known here is what the files say.
    ///
    /// # Errors
    ///
    /// `Corrupt` if they were edited, or are not complete; or why they cannot be
    /// read. What is known here stays.
    pub(super) fn keep_up(&mut self, folder: &Folder) -> Result<()> {
        match self.check_files(folder) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                *self = Self::reopen(folder, &self.map)?;
                Ok(())
            }
            checked => checked,
        }
    }

    /// That the files are those that are known here. Others must not be added to:
    /// what is written for these could not be read again.
    ///
    /// A snapshot is told by its looks, a meta file by its checksum, and a journal by
    /// its id and its length. That is enough to tell two states of a map apart: a
    /// compaction makes new ones of the first two, and each commit between two of them makes
    /// the journal longer. The id is for a copy from which the map went on in another
    /// way.
    ///
    /// # Errors
    ///
    /// `Corrupt` if they are others; or why they cannot be looked at.
    pub(super) fn check_files(&mut self, folder: &Folder) -> Result<()> {
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
        // One that is only dated anew is the same.
        let found = Snapshot::read(disk, path)?.filter(|found| found.digest == digest);
        if let Some(same) = &found {
            self.snapshot = Some((digest, same.looks));
        }
        Ok(found.is_some())
    }

    /// Without a journal, there is no mark either.
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
        // How long a broken one has become is not known.
        if size < known.bytes || size > known.bytes && !known.is_broken {
            return Ok(false);
        }
        Ok(id_in(&file.read(0, ID_ENDS)?) == Some(known.id))
    }
}
