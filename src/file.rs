//! Opening local files without blocking on FIFOs and devices.

#[cfg(any(feature = "journal", feature = "postgres"))]
use std::fs::{File, OpenOptions};
use std::{
    fs::{self, FileType},
    io,
    path::Path,
};

#[cfg(any(feature = "journal", feature = "sqlite"))]
pub(crate) mod access;
#[cfg(any(feature = "journal", feature = "sqlite"))]
pub(crate) mod folder;

/// Opens a regular file. Opening a FIFO would block until its other end is opened,
/// and opening a device may have side effects.
///
/// The first check avoids opening anything but a file. Another program may replace
/// the file between the check and the opening, so the file is opened with
/// `O_NONBLOCK`, which has no effect on regular files, and then checked again.
///
/// # Errors
///
/// `IsADirectory` for a folder, `InvalidInput` for a FIFO, a socket or a device;
/// otherwise the error of the system.
#[cfg(any(feature = "journal", feature = "postgres"))]
pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    check(path)?;
    let opened = without_waiting(options).open(path)?;
    check_type(opened.metadata()?.file_type())?;
    Ok(opened)
}

/// Reads a whole file that is opened with [`open`].
#[cfg(feature = "postgres")]
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = open(OpenOptions::new().read(true), path)?;
    io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}

/// Checks that the path is a regular file or does not exist.
///
/// # Errors
///
/// Those of [`open`], except `NotFound`.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) => check_type(found.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn check_type(found: FileType) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let problem = format!("{} is in the place of the file", name_of(found));
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

#[cfg(unix)]
fn name_of(found: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    if found.is_fifo() {
        "a FIFO"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn name_of(_: FileType) -> &'static str {
    "something else"
}

#[cfg(all(unix, any(feature = "journal", feature = "postgres")))]
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(libc::O_NONBLOCK)
}

#[cfg(all(not(unix), any(feature = "journal", feature = "postgres")))]
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}
