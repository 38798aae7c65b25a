//! Folders that files are kept in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The folder that a path is in; the current one for a bare name, and for no
/// name at all.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        // The root is in itself.
        None if path.has_root() => path,
        _ => Path::new("."),
    }
}

/// Makes a folder, and those above it, where they are missing. Each is safe in
/// the one above it, or a loss of power could take it along with all that was
/// committed in it.
///
/// Those who may read its files (`file_mode`) may look into it, and no others.
///
/// # Errors
///
/// The system's; also if something else is in the place of a folder.
pub(crate) fn make(folder: &Path, file_mode: u32) -> io::Result<()> {
    // A loop, because the length of a path is no measure for a stack.
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
            // Another program made it at the same time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made?,
        }
        sync(parent_of(folder))?;
    }
    Ok(())
}

/// Makes what was made, renamed or removed in a folder survive a loss of power.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened like a file, and renames are written
    // through.
    if cfg!(unix) {
        // A slash at the end: what is no folder by now is not even opened.
        let mut folder = PathBuf::from(folder);
        folder.push("");
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Made for this user alone, and then opened to others, whatever the umask.
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
