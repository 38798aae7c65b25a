//! The seam to the disk: the handful of operations that the files of a map
//! need.

use std::{fmt, io, path::Path, time::SystemTime};

mod real;

pub use real::RealDisk;

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

    /// Opens a file for reading, without waiting for anything.
    ///
    /// # Errors
    ///
    /// What the system says; `IsADirectory` for a folder, `InvalidInput` for
    /// what is neither a file nor a folder.
    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for appending, without waiting for anything; a missing file
    /// is not made.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    fn open_to_append(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Starts a file that will take the place `target`, with the mode and the
    /// owner of the file `like`, as far as this user may give them; fewer may
    /// open it otherwise, and never more. Until then it has another name, and if
    /// it is dropped it goes away.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn create(&self, target: &Path, like: &Path) -> io::Result<Box<dyn NewFile>>;

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
}
