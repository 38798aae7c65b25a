//! The disk of this machine.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use fs4::{FileExt, TryLockError};
use tempfile::{NamedTempFile, TempPath};

use super::{Disk, DiskFile, FolderLock, NewFile};
use crate::{
    file::{
        self,
        access::{self, PRIVATE},
        folder::{self, parent_of},
    },
    trace::PROVIDER,
};

/// The disk of this machine.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RealDisk {
    /// The mode of new files.
    file_mode: u32,
}

impl RealDisk {
    /// The disk of this machine. New files are private to this user.
    pub const fn new() -> Self {
        Self::with_file_mode(PRIVATE)
    }

    /// The disk of this machine. New files have this mode.
    pub(crate) const fn with_file_mode(file_mode: u32) -> Self {
        Self { file_mode }
    }

    fn make_lock_file(self, path: &Path) -> io::Result<()> {
        let temp = access::temporary(parent_of(path))?;
        access::set_mode(temp.as_file(), self.file_mode)?;
        match temp.persist_noclobber(path) {
            // Another program created it at the same time.
            Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.map(drop).map_err(|failed| failed.error),
        }
    }
}

impl Default for RealDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl Disk for RealDisk {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        folder::make(folder, self.file_mode)
    }

    fn lock(&self, file: &Path) -> io::Result<Box<dyn FolderLock>> {
        let open = || file::open(OpenOptions::new().write(true), file);
        let held = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_lock_file(file)?;
                open()?
            }
            held => held?,
        };
        match FileExt::try_lock(&held) {
            Ok(()) => Ok(Box::new(HeldFile {
                held,
                path: file.to_owned(),
            })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(file::open(OpenOptions::new().read(true), file)?))
    }

    fn open_to_append(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        Ok(Box::new(file::open(options.read(true).append(true), file)?))
    }

    fn create(&self, target: &Path, like: &Path) -> io::Result<Box<dyn NewFile>> {
        let linked = link_target(target)?;
        let place = linked.as_deref().unwrap_or(target);
        let temp = access::temporary(parent_of(place))?;
        access::share_like(temp.as_file(), like, self.file_mode)?;
        Ok(Box::new(Temp {
            file: temp,
            target: place.to_owned(),
            is_elsewhere: linked.is_some(),
        }))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        folder::sync(folder)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }
}

/// The target of a symbolic link, because the target is replaced and not the link. `None`
/// if it is not a link, or leads nowhere.
fn link_target(path: &Path) -> io::Result<Option<PathBuf>> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    if !is_link {
        return Ok(None);
    }
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// A locked file.
struct HeldFile {
    held: File,
    path: PathBuf,
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        // The system unlocks the file when all copies of its descriptor are closed. A
        // child process that is being started has a copy for a moment.
        if let Err(error) = FileExt::unlock(&self.held) {
            tracing::debug!(target: PROVIDER, %error, "a lock is held until its file is closed");
        }
    }
}

impl FolderLock for HeldFile {
    fn is_in_place(&self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(found) => Ok(is_same(&found, &self.held.metadata()?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// While a file is open, no other file has its device and inode numbers.
#[cfg(unix)]
fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Other systems have no inode numbers, so the creation times are compared.
#[cfg(not(unix))]
fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    a.created().ok() == b.created().ok()
}

impl DiskFile for File {
    fn size(&mut self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn modified(&mut self) -> io::Result<SystemTime> {
        self.metadata()?.modified()
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset))?;
        self.read_exact(into)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

struct Temp {
    file: NamedTempFile,
    target: PathBuf,
    /// Whether the target is in another folder, which has to be synced as well.
    is_elsewhere: bool,
}

impl Temp {
    /// Closes the file first, because some systems cannot rename an open one.
    fn close(self) -> (TempPath, PathBuf) {
        (self.file.into_temp_path(), self.target)
    }
}

impl NewFile for Temp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.as_file().sync_all()
    }

    fn replace(self: Box<Self>) -> io::Result<()> {
        let is_elsewhere = self.is_elsewhere;
        let (temp, target) = self.close();
        temp.persist(&target).map_err(|failed| failed.error)?;
        if is_elsewhere {
            folder::sync(parent_of(&target))?;
        }
        Ok(())
    }
}
