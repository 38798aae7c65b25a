//! Who may read and write the files that are made here.
//!
//! Values are private unless their owner says otherwise. A new file is made for
//! its owner alone, and opened to others, if at all, once its owner and group
//! are right: there is no moment in which too many may open it.

use std::{
    fs::{self, File, Metadata},
    io,
    path::Path,
};

use tempfile::NamedTempFile;

/// The mode of a new file: read and written by its owner.
pub(crate) const PRIVATE: u32 = 0o600;

/// What starts and ends the name of a file that is not yet what it is to be.
pub(crate) const TEMP_NAME: (&str, &str) = (".persistify-", ".tmp");

/// How many random letters are between the two.
pub(crate) const TEMP_LETTERS: usize = 16;

/// That a mode is one for files that are read and written here.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn check_mode(mode: u32) -> Result<(), String> {
    if mode & !0o777 == 0 && mode & PRIVATE == PRIVATE {
        return Ok(());
    }
    Err(format!(
        "file_mode is {mode:#o}; it must let the owner read and write (0o600), and be 0o777 at most"
    ))
}

/// A file of a name of its own in that folder, for this user alone.
pub(crate) fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    // Without permissions given, it is made with 0600, less the umask.
    tempfile::Builder::new()
        .prefix(TEMP_NAME.0)
        .suffix(TEMP_NAME.1)
        .rand_bytes(TEMP_LETTERS)
        .tempfile_in(folder)
}

/// Gives a file that was made for this user alone the owner, the group and the
/// mode of another one, `like`; and that mode if there is no such file.
///
/// Where the system does not allow the owner or the group, fewer may open it.
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
    // The group it would be opened to is another one.
    let to_group = if is_of_group { 0o777 } else { 0o707 };
    // This program has to read it again, whoever may write the other.
    set_mode(file, like.mode() & to_group | PRIVATE)
}

/// Only whether it may be written to can be told elsewhere.
#[cfg(not(unix))]
fn share(_: &File, _: &Metadata) -> io::Result<()> {
    Ok(())
}

/// Sets the mode, whatever the umask.
#[cfg(unix)]
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    if file.metadata()?.mode() & 0o777 == mode {
        return Ok(());
    }
    match file.set_permissions(fs::Permissions::from_mode(mode)) {
        // A file system that keeps no modes; how it is mounted says who may.
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

/// There are no modes elsewhere.
#[cfg(not(unix))]
pub(crate) fn set_mode(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}
