//! Modes and owners of new files.
//!
//! Files are private by default. A new file is created for its owner only. Its mode
//! is widened, if at all, after its owner and group are set, so the file is never
//! accessible to more users than it should be.

use std::{
    fs::{self, File, Metadata},
    io,
    path::Path,
};

use tempfile::NamedTempFile;

/// The default mode of a new file: only the owner reads and writes it.
pub(crate) const PRIVATE: u32 = 0o600;

/// The prefix and suffix of the names of temporary files.
pub(crate) const TEMP_NAME: (&str, &str) = (".persistify-", ".tmp");

/// The number of random letters between prefix and suffix.
pub(crate) const TEMP_LETTERS: usize = 16;

/// Checks a `file_mode` option.
///
/// # Errors
///
/// A message that says what is wrong with the mode.
#[cfg(any(feature = "json", feature = "sqlite"))]
pub(crate) fn check_mode(mode: u32) -> Result<(), String> {
    if mode & !0o777 == 0 && mode & PRIVATE == PRIVATE {
        return Ok(());
    }
    Err(format!(
        "file_mode is {mode:#o}; it must let the owner read and write (0o600), and be 0o777 at most"
    ))
}

/// Creates a temporary file in the folder that only this user can open.
pub(crate) fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    // The default mode of `tempfile` is 0600, less the umask.
    tempfile::Builder::new()
        .prefix(TEMP_NAME.0)
        .suffix(TEMP_NAME.1)
        .rand_bytes(TEMP_LETTERS)
        .tempfile_in(folder)
}

/// Gives a private file the owner, the group and the mode of the file `like`, or the
/// mode `otherwise` if `like` does not exist.
///
/// If the system does not permit changing the group, the group gets no access.
pub(crate) fn share_like(file: &File, like: &Path, otherwise: u32) -> io::Result<()> {
    match fs::metadata(like) {
        Ok(there) => share(file, &there),
        Err(error) if error.kind() == io::ErrorKind::NotFound => set_mode(file, otherwise),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn share(file: &File, like: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let made = file.metadata()?;
    let is_same = (made.uid(), made.gid()) == (like.uid(), like.gid());
    let is_of_group = is_same
        || fchown(file, Some(like.uid()), Some(like.gid())).is_ok()
        || fchown(file, None, Some(like.gid())).is_ok();
    // If the group was not changed, the mode must not open the file to it.
    let to_group = if is_of_group { 0o777 } else { 0o707 };
    // This program must be able to read and write the file in any case.
    set_mode(file, like.mode() & to_group | PRIVATE)
}

/// Other systems have only a read-only flag.
#[cfg(not(unix))]
fn share(_: &File, _: &Metadata) -> io::Result<()> {
    Ok(())
}

/// Sets the mode, regardless of the umask.
#[cfg(unix)]
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    if file.metadata()?.mode() & 0o777 == mode {
        return Ok(());
    }
    match file.set_permissions(fs::Permissions::from_mode(mode)) {
        // The file system keeps no modes; its mount options decide.
        Err(error) if is_not_kept(&error) => Ok(()),
        done => done,
    }
}

#[cfg(unix)]
fn is_not_kept(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
    )
}

/// Other systems have no modes.
#[cfg(not(unix))]
pub(crate) fn set_mode(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}
