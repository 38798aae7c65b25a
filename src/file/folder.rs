//! Creating and syncing folders.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folder of a path: the current folder for a bare file name and for an empty
/// path, the root for the root.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        None if path.has_root() => path,
        _ => Path::new("."),
    }
}

/// Creates a folder and its missing parents. Each is synced in its parent;
/// otherwise a power loss could remove it with all commits in it.
///
/// The folder can be listed by the users who can read its files (`file_mode`).
///
/// # Errors
///
/// Those of the system, also if a part of the path is not a folder.
pub(crate) fn make(folder: &Path, file_mode: u32) -> io::Result<()> {
    // A loop, because recursion could overflow the stack on a long path.
    let mut missing: Vec<&Path> = Vec::new();
    let mut at = folder;
    while !at.as_os_str().is_empty() && !at.is_dir() {
        missing.push(at);
        let above = parent_of(at);
        if above == at {
            break;
        }
        at = above;
    }
    while let Some(folder) = missing.pop() {
        match make_one(folder, file_mode) {
            // Another program has just created it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made?,
        }
        sync(parent_of(folder))?;
    }
    Ok(())
}

/// Makes creations, renames and removals in a folder survive a power loss.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    // On other systems a folder cannot be opened as a file, and renames are written
    // through.
    if cfg!(unix) {
        // With a trailing slash, opening fails unless it is still a folder.
        let mut folder = PathBuf::from(folder);
        folder.push("");
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Creates the folder for this user only and then sets its mode, regardless of the
/// umask.
#[cfg(unix)]
fn make_one(folder: &Path, file_mode: u32) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    let mode = file_mode | (file_mode & 0o444) >> 2;
    if mode == 0o700 {
        return Ok(());
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn make_one(folder: &Path, _: u32) -> io::Result<()> {
    fs::create_dir(folder)
}
