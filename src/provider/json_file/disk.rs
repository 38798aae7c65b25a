//! The seam to the disk: the handful of operations that the files of a map
//! need.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use fs4::{FileExt, TryLockError};
use tempfile::{NamedTempFile, TempPath};

/// What starts the name of every file that is not yet what it is to be.
pub(super) const TEMP_PREFIX: &str = ".persistify-";

/// A disk, as far as the files of a map need one.
///
/// Every call blocks. Nothing else reaches the disk, so a test can put faults
/// under the whole provider here.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes the folder, and those above it, if they are missing, so that they
    /// survive a loss of power.
    ///
    /// # Errors
    ///
    /// What the system says; also if something else than a folder is there.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;

    /// Takes the lock that this file stands for, made if missing; it is held
    /// until what is returned is dropped, or the process ends.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if someone else holds it; else what the system says.
    fn lock(&self, file: &Path) -> io::Result<Box<dyn FolderLock>>;

    /// The names of what is in the folder; names that are not Unicode are left
    /// out.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// What the system says; `IsADirectory` for a folder.
    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for appending; a missing file is not made.
    ///
    /// # Errors
    ///
    /// What the system says; `IsADirectory` for a folder.
    fn open_to_append(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Starts a file that will take this place, with the permissions of the
    /// one that is there. Until then it has another name, and if it is dropped
    /// it goes away.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn create(&self, target: &Path) -> io::Result<Box<dyn NewFile>>;

    /// Makes what was made, renamed or removed in the folder survive a loss of
    /// power.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// What the system says; `NotFound` if there is none.
    fn remove(&self, file: &Path) -> io::Result<()>;
}

/// A lock that is held until this is dropped.
pub trait FolderLock: Send + Sync {
    /// Whether the file that is locked is the one that is found in its place.
    /// If it was removed or moved away, someone else may hold another one there.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn is_in_place(&self) -> io::Result<bool>;
}

/// An open file.
pub trait DiskFile: Send {
    /// How many bytes it holds.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn size(&mut self) -> io::Result<u64>;

    /// When it was last changed.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn modified(&mut self) -> io::Result<SystemTime>;

    /// Fills the whole buffer from there.
    ///
    /// # Errors
    ///
    /// What the system says; `UnexpectedEof` if the file ends before.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes at the end. After an error any number of the bytes may be there.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written survive a loss of power.
    ///
    /// # Errors
    ///
    /// What the system says. What was written before may or may not survive,
    /// and no later success says anything about it.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that is being written and has not taken its place yet.
pub trait NewFile: Send {
    /// Writes at the end.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written survive a loss of power.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync(&mut self) -> io::Result<()>;

    /// Takes its place in one step, instead of what is there.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn replace(self: Box<Self>) -> io::Result<()>;

    /// Takes its place in one step, if nothing is there.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if something is; else what the system says.
    fn settle(self: Box<Self>) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RealDisk;

impl RealDisk {
    /// The disk of this machine.
    pub const fn new() -> Self {
        Self
    }
}

impl Disk for RealDisk {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let parent = parent_of(folder);
        self.make_folder(parent)?;
        match fs::create_dir(folder) {
            // Someone else made it at the same time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made?,
        }
        self.sync_folder(parent)
    }

    fn lock(&self, file: &Path) -> io::Result<Box<dyn FolderLock>> {
        let mut options = OpenOptions::new();
        let held = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(file)?;
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
        checked(File::open(file)?)
    }

    fn open_to_append(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        checked(OpenOptions::new().read(true).append(true).open(file)?)
    }

    fn create(&self, target: &Path) -> io::Result<Box<dyn NewFile>> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMP_PREFIX);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As an ordinary program would make it: less what the umask takes.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let linked = link_target(target)?;
        let place = linked.as_deref().unwrap_or(target);
        let temp = builder.tempfile_in(parent_of(place))?;
        match fs::metadata(target) {
            Ok(there) => temp.as_file().set_permissions(there.permissions())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Box::new(Temp {
            file: temp,
            target: place.to_owned(),
            is_elsewhere: linked.is_some(),
        }))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // Elsewhere a folder cannot be opened like a file, and renames are
        // written through.
        if cfg!(unix) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }
}

/// Where a symbolic link leads: what takes its place takes the place of the file
/// that it stands for. None if it is no link, or leads to nothing.
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

/// The folder a path is in; for a bare name, the current one.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn checked(file: File) -> io::Result<Box<dyn DiskFile>> {
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(Box::new(file))
}

/// A file that is locked.
struct HeldFile {
    held: File,
    path: PathBuf,
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        // The system lets go of the lock when the file is closed, but not
        // before everyone has closed it: a process that is being started has
        // a copy of it for a moment.
        if let Err(error) = FileExt::unlock(&self.held) {
            tracing::debug!(%error, "a lock is held until its file is closed");
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

/// While a file is open, no other has its number.
#[cfg(unix)]
fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Elsewhere files have no number that can be asked for.
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
    /// In another folder, which nobody else syncs.
    is_elsewhere: bool,
}

impl Temp {
    /// Closes the file first: some systems do not rename an open one.
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
            RealDisk.sync_folder(parent_of(&target))?;
        }
        Ok(())
    }

    fn settle(self: Box<Self>) -> io::Result<()> {
        let (temp, target) = self.close();
        temp.persist_noclobber(target)
            .map_err(|failed| failed.error)
    }
}
