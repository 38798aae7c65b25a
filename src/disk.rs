//! The operations on the disk that journals and the files of a map need.

use std::{fmt, io, path::Path, time::SystemTime};

pub(crate) mod fault;
pub(crate) mod file;
pub(crate) mod left_over;
mod real;

pub use real::RealDisk;

/// A disk, with the operations that the files of a map need.
///
/// Every call may block for the time of the I/O. `JsonFile` and `Journaled` reach the disk only
/// through this trait, so a test can inject faults here.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates the folder and its missing parents, durably.
    ///
    /// # Errors
    ///
    /// The error of the system; also if something other than a folder is there.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;

    /// Locks this file, and creates it if it is missing. The lock is held until the
    /// returned value is dropped, or the process ends.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it is locked already; otherwise the error of the system.
    fn lock(&self, file: &Path) -> io::Result<Box<dyn FolderLock>>;

    /// Lists the names in the folder. Names that are not Unicode are left out.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Opens a file for reading. Does not wait for another process, as opening a named pipe would.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none, `IsADirectory` for a folder, `InvalidInput` for anything else
    /// that is not a file; otherwise the error of the system.
    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading and appending, as [`open`](Self::open) does.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    fn open_to_append(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Creates a file that will replace `target`, under a temporary name. It gets the mode
    /// and the owner of the file `like`, as far as the system permits; if not, fewer users
    /// can open it, never more. Dropping it removes it.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn create(&self, target: &Path, like: &Path) -> io::Result<Box<dyn NewFile>>;

    /// Makes creations, renames and removals in the folder survive a power loss.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none; otherwise the error of the system.
    fn remove(&self, file: &Path) -> io::Result<()>;
}

/// A lock that is held until this value is dropped.
pub trait FolderLock: Send + Sync {
    /// Whether the locked file is still in its place. If it was removed or moved, another
    /// process may have locked a new one there.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn is_in_place(&self) -> io::Result<bool>;
}

/// An open file.
pub trait DiskFile: Send {
    /// Returns the size in bytes.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn size(&mut self) -> io::Result<u64>;

    /// Returns the modification time.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn modified(&mut self) -> io::Result<SystemTime>;

    /// Fills the buffer with the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file ends before; otherwise the error of the system.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Appends bytes. After an error, any number of them may be in the file.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes earlier writes survive a power loss.
    ///
    /// # Errors
    ///
    /// The error of the system. Earlier writes may or may not survive then, and a later
    /// success proves nothing about them.
    fn sync(&mut self) -> io::Result<()>;
}

/// A new file that has not replaced another one yet.
pub trait NewFile: Send {
    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes earlier writes survive a power loss.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn sync(&mut self) -> io::Result<()>;

    /// Replaces the target in one step.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn replace(self: Box<Self>) -> io::Result<()>;
}
