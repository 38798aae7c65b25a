//! Removing the files of a map.

use std::{io, path::Path};

use super::{files::Folder, store::Store};
use crate::{batch::Batch, disk::fault::fault, error::Result, record::Revision};

impl Store {
    /// Commits the batch that empties the map, and returns the revision of the drop. An
    /// adopted file keeps its entries; the batch then only gives the revision.
    ///
    /// The map is emptied before its files are removed. So after a crash it is as it was, or
    /// empty, whichever of its files are left.
    pub(super) fn empty_or_detach(&mut self, folder: &Folder, batch: &Batch) -> Result<Revision> {
        self.keep_up(folder)?;
        let is_there = self.snapshot.is_some() || self.meta.is_some() || self.journal.is_some();
        if folder.adopted.contains_key(&self.map) || !is_there {
            return Ok(batch.revision_after(self.last));
        }
        let parts = batch.maps.iter();
        let committed = parts.map(|part| self.commit(folder, batch, part));
        let committed = committed.last().transpose()?;
        Ok(committed.and_then(|done| done.revision).unwrap_or_default())
    }

    /// Removes the files; of an adopted file only those beside it.
    ///
    /// The meta file is removed first, and the folder is synced before the snapshot is removed:
    /// a snapshot alone is a map, but a meta file alone means that its snapshot is missing.
    pub(super) fn remove_files(mut self, folder: &Folder) -> Result<()> {
        self.compact(folder)?;
        remove(folder, &self.files.meta)?;
        folder.sync()?;
        if folder.adopted.contains_key(&self.map) {
            return Ok(());
        }
        remove(folder, &self.files.snapshot)?;
        let mut number = 0;
        while remove(folder, &folder.path.join(self.files.torn_name(number)))? {
            number += 1;
        }
        folder.sync()
    }
}

/// Removes a file. Returns whether there was one.
fn remove(folder: &Folder, path: &Path) -> Result<bool> {
    match folder.disk.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(fault("remove", path, error)),
    }
}
