//! New files that a crash left before they replaced others.

use std::path::Path;

use crate::{
    error::Result,
    file::access::{TEMP_LETTERS, TEMP_NAME},
    provider::json_file::{files::Folder, format::journal},
    trace::PROVIDER,
};

/// Removes the new files that a crash left.
///
/// They do no harm, so only those that are certainly ours are removed: files with the name of
/// a new file that are empty or begin like one. A file that cannot be read or removed stays.
pub(crate) fn remove(folder: &Folder) -> Result<()> {
    let names = folder.list()?;
    for name in names.iter().filter(|name| is_named_as_one(name)) {
        let path = folder.path.join(name);
        if !begins_as_one(folder, &path).unwrap_or(false) {
            continue;
        }
        if let Err(error) = folder.disk.remove(&path) {
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

/// Whether the file is empty, or begins like a snapshot, a meta file, a journal or a trial.
fn begins_as_one(folder: &Folder, path: &Path) -> std::io::Result<bool> {
    let mut file = folder.disk.open(path)?;
    if file.size()? == 0 {
        return Ok(true);
    }
    let mut first = [0];
    file.read_at(0, &mut first)?;
    Ok([b'{', journal::FIRST, b'?'].contains(&first[0]))
}
