//! New files that a crash kept from taking their places.

use std::path::Path;

use super::{files::Folder, journal};
use crate::{
    error::Result,
    file::access::{TEMP_LETTERS, TEMP_NAME},
    trace::PROVIDER,
};

/// Removes what a crash left of files that were not yet what they were to be.
///
/// They are in the way of nothing, so only what is surely ours goes: a file with
/// the name of a new file, that begins as one does. What cannot be looked at or
/// removed stays too.
pub(super) fn remove(folder: &Folder) -> Result<()> {
    let names = folder.list()?;
    for name in names.iter().filter(|name| is_name_of_one(name)) {
        let path = folder.path.join(name);
        if !begins_as_one(folder, &path).unwrap_or(false) {
            continue;
        }
        if let Err(error) = folder.disk.remove(&path) {
            tracing::warn!(
                target: PROVIDER,
                file = %path.display(),
                cause = %error,
                "what a crash left of a new file was not removed; it is of no use",
            );
        }
    }
    Ok(())
}

fn is_name_of_one(name: &str) -> bool {
    let (start, end) = TEMP_NAME;
    let letters = name
        .strip_prefix(start)
        .and_then(|rest| rest.strip_suffix(end));
    letters.is_some_and(|letters| {
        letters.len() == TEMP_LETTERS && letters.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Whether it holds nothing yet, or begins like a snapshot or a meta file, like a
/// journal or a part of one, or as a trial does.
fn begins_as_one(folder: &Folder, path: &Path) -> std::io::Result<bool> {
    let mut file = folder.disk.open(path)?;
    if file.size()? == 0 {
        return Ok(true);
    }
    let mut first = [0];
    file.read_at(0, &mut first)?;
    Ok([b'{', journal::FIRST, b'?'].contains(&first[0]))
}
