//! New files that a crash left before they replaced others.

use std::path::Path;

use super::{Disk, fault::fault};
use crate::{
    error::Result,
    file::access::{TEMP_LETTERS, TEMP_NAME},
    trace::PROVIDER,
};

/// Removes the new files that a crash left.
///
/// They do no harm, so only files that this crate has certainly made are removed: those with the
/// name of a new file that are empty or begin with one of these bytes. A file that cannot be read
/// or removed stays.
pub(crate) fn remove(disk: &dyn Disk, folder: &Path, first: &[u8]) -> Result<()> {
    let names = disk.list(folder);
    let names = names.map_err(|error| fault("list", folder, error))?;
    for name in names.iter().filter(|name| is_named_as_one(name)) {
        let path = folder.join(name);
        if !begins_as_one(disk, &path, first).unwrap_or(false) {
            continue;
        }
        if let Err(error) = disk.remove(&path) {
            tracing::warn!(
                target: PROVIDER,
                file = %path.display(),
                cause = %error,
                "a temporary file of an earlier crash was not removed; it can be deleted",
            );
        }
    }
    Ok(())
}

fn is_named_as_one(name: &str) -> bool {
    let (start, end) = TEMP_NAME;
    let letters = name
        .strip_prefix(start)
        .and_then(|rest| rest.strip_suffix(end));
    letters.is_some_and(|letters| {
        letters.len() == TEMP_LETTERS && letters.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Whether the file is empty, or begins with one of these bytes.
fn begins_as_one(disk: &dyn Disk, path: &Path, ours: &[u8]) -> std::io::Result<bool> {
    let mut file = disk.open(path)?;
    if file.size()? == 0 {
        return Ok(true);
    }
    let mut first = [0];
    file.read_at(0, &mut first)?;
    Ok(ours.contains(&first[0]))
}
