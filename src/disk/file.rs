//! Files whose errors name them: open files, and new files that replace others.

use std::{io::ErrorKind as Io, path::Path, time::SystemTime};

use xxhash_rust::xxh3::Xxh3Default;

use super::{Disk, DiskFile, NewFile, fault::fault};
use crate::error::Result;

/// The properties that tell two states of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looks {
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
}

/// An open file.
pub(crate) struct OpenFile<'a> {
    pub(crate) file: Box<dyn DiskFile>,
    path: &'a Path,
}

impl<'a> OpenFile<'a> {
    #[cfg(feature = "json")]
    pub(crate) fn open(disk: &dyn Disk, path: &'a Path) -> Result<Self> {
        let opened = disk.open(path);
        let file = opened.map_err(|error| fault("open", path, error))?;
        Ok(Self { file, path })
    }

    /// `None` if there is no such file.
    pub(crate) fn open_if_there(disk: &dyn Disk, path: &'a Path) -> Result<Option<Self>> {
        match disk.open(path) {
            Ok(file) => Ok(Some(Self { file, path })),
            Err(error) if error.kind() == Io::NotFound => Ok(None),
            Err(error) => Err(fault("open", path, error)),
        }
    }

    pub(crate) fn open_to_append(disk: &dyn Disk, path: &'a Path) -> Result<Self> {
        let opened = disk.open_to_append(path);
        let file = opened.map_err(|error| fault("open", path, error))?;
        Ok(Self { file, path })
    }

    pub(crate) fn size(&mut self) -> Result<u64> {
        let size = self.file.size();
        size.map_err(|error| fault("look at", self.path, error))
    }

    pub(crate) fn looks(&mut self) -> Result<Looks> {
        let size = self.size()?;
        let modified = self.file.modified();
        let modified = modified.map_err(|error| fault("look at", self.path, error))?;
        Ok(Looks { size, modified })
    }

    /// Reads `count` bytes at `offset`.
    pub(crate) fn read(&mut self, offset: u64, count: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(usize::MAX)];
        let read = self.file.read_at(offset, &mut bytes);
        read.map_err(|error| fault("read", self.path, error))?;
        Ok(bytes)
    }
}

/// Reads a whole file; `None` if there is no such file.
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path) -> Result<Option<(Vec<u8>, Looks)>> {
    let Some(mut file) = OpenFile::open_if_there(disk, path)? else {
        return Ok(None);
    };
    let looks = file.looks()?;
    Ok(Some((file.read(0, looks.size)?, looks)))
}

/// A new file that will replace the one at its path in one step.
pub(crate) struct Replacement<'a> {
    file: Box<dyn NewFile>,
    path: &'a Path,
    bytes: u64,
    digest: Xxh3Default,
}

impl<'a> Replacement<'a> {
    /// Creates a file with the mode and the owner of the file `like`.
    pub(crate) fn create(disk: &dyn Disk, path: &'a Path, like: &Path) -> Result<Self> {
        let made = disk.create(path, like);
        Ok(Self {
            file: made.map_err(|error| fault("create a new file for", path, error))?,
            path,
            bytes: 0,
            digest: Xxh3Default::new(),
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        let written = self.file.write(bytes);
        written.map_err(|error| fault("write a new file for", self.path, error))
    }

    /// How many bytes were written.
    #[cfg(feature = "json")]
    pub(crate) fn size(&self) -> u64 {
        self.bytes
    }

    /// The digest of the written bytes.
    #[cfg(feature = "json")]
    pub(crate) fn digest(&self) -> u128 {
        self.digest.digest128()
    }

    /// On return the content is durable, but the file has not replaced the other one.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let synced = self.file.sync();
        synced.map_err(|error| fault("sync a new file for", self.path, error))
    }

    /// Replaces the other file. This is durable only once the folder is synced.
    pub(crate) fn replace(self) -> Result<()> {
        let replaced = self.file.replace();
        replaced.map_err(|error| fault("replace", self.path, error))
    }
}
