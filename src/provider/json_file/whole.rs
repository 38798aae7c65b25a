//! Files as wholes: read in one go, and replaced in one step.

use std::{path::Path, time::SystemTime};

use super::{
    disk::{Disk, DiskFile, NewFile},
    fault::fault,
};
use crate::error::Result;

/// What is seen of a file without reading it. If it changes, someone else
/// wrote to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looks {
    size: u64,
    modified: SystemTime,
}

impl Looks {
    pub(super) fn of(file: &mut dyn DiskFile, path: &Path) -> Result<Self> {
        let mut look = || {
            Ok(Self {
                size: file.size()?,
                modified: file.modified()?,
            })
        };
        look().map_err(|error: std::io::Error| fault("look at", path, error))
    }

    pub(super) fn size(self) -> u64 {
        self.size
    }

    pub(super) fn modified(self) -> SystemTime {
        self.modified
    }
}

/// Reads a file, and how it looks; none if there is none.
pub(super) fn read_whole(disk: &dyn Disk, path: &Path) -> Result<Option<(Vec<u8>, Looks)>> {
    let mut file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault("open", path, error)),
    };
    let looks = Looks::of(&mut *file, path)?;
    let read = || {
        let size = usize::try_from(file.size()?).map_err(std::io::Error::other)?;
        let mut bytes = vec![0; size];
        file.read_at(0, &mut bytes)?;
        Ok(bytes)
    };
    let bytes = { read }().map_err(|error| fault("read", path, error))?;
    Ok(Some((bytes, looks)))
}

/// A file that will take the place `target` when it [replaces](replace) it, and
/// that those may read and write who may read and write `like`.
pub(super) fn create(disk: &dyn Disk, target: &Path, like: &Path) -> Result<Box<dyn NewFile>> {
    let made = disk.create(target, like);
    made.map_err(|error| fault("make a new file for", target, error))
}

pub(super) fn write(file: &mut dyn NewFile, target: &Path, bytes: &[u8]) -> Result<()> {
    let written = file.write(bytes);
    written.map_err(|error| fault("write a new file for", target, error))
}

/// What is in the file is safe on the disk after this; it is not in its place.
pub(super) fn sync(file: &mut dyn NewFile, target: &Path) -> Result<()> {
    let synced = file.sync();
    synced.map_err(|error| fault("sync a new file for", target, error))
}

/// The file takes its place. It is safe there only when the folder was synced.
pub(super) fn replace(file: Box<dyn NewFile>, target: &Path) -> Result<()> {
    let replaced = file.replace();
    replaced.map_err(|error| fault("replace", target, error))
}
