//! Writing to a journal: appending a frame, and replacing the file.

use std::path::Path;

use crate::{
    disk::{Disk, DiskFile, fault::fault, file::Replacement},
    error::Result,
    file::folder::parent_of,
};

/// Appends a frame and syncs it. `size` is the size of the file after that.
///
/// After an error, the file is not written to again. If it lacks a part of the frame now, the
/// frame never becomes complete, and a torn frame is not applied. Otherwise, or if the size is
/// unknown, the frame may be complete.
pub(crate) fn write(file: &mut dyn DiskFile, path: &Path, frame: &[u8], size: u64) -> Result<()> {
    if let Err(error) = file.append(frame) {
        let error = fault("write to", path, error);
        let is_torn = file.size().is_ok_and(|found| found < size);
        return Err(if is_torn {
            error
        } else {
            error.outcome_unknown()
        });
    }
    let synced = file.sync();
    synced.map_err(|error| fault("sync", path, error).outcome_unknown())
}

/// Replaces a journal with these bytes, durably. The file gets the mode and the owner of the
/// file `like`.
///
/// Append nothing before this returns: otherwise a crash could bring back the old file,
/// without the frames that were acknowledged in the new one.
pub(crate) fn put(disk: &dyn Disk, path: &Path, like: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = Replacement::create(disk, path, like)?;
    file.write(bytes)?;
    file.sync()?;
    file.replace()?;
    let folder = parent_of(path);
    let synced = disk.sync_folder(folder);
    synced.map_err(|error| fault("sync the folder", folder, error))
}
