//! Torn tails of journals: they are kept and not applied.

use std::path::PathBuf;

use super::{
    disk::Disk,
    files::{Files, Folder},
    io::Replacement,
};
use crate::{error::Result, trace::PROVIDER};

/// Keeps the bytes of a torn frame beside the journal, under a name that is
/// not taken. Should there be a crash before the journal is rid of them, they
/// are kept once more.
pub(super) fn set_aside(folder: &Folder, files: &Files, torn: &[u8]) -> Result<()> {
    let path = settle_torn(&*folder.disk, files, torn)?;
    folder.sync()?;
    tracing::warn!(
        target: PROVIDER,
        journal = %files.journal.display(),
        kept_as = %path.display(),
        bytes = torn.len(),
        "the last batch in the journal is not whole: it was cut short by a crash, or damaged since; \
         it is set aside and not applied",
    );
    Ok(())
}

fn settle_torn(disk: &dyn Disk, files: &Files, torn: &[u8]) -> Result<PathBuf> {
    let mut number = 0;
    loop {
        let path = files.torn(number);
        let mut file = Replacement::create(disk, &path, &files.snapshot)?;
        file.write(torn)?;
        file.sync()?;
        if file.settle()? {
            return Ok(path);
        }
        number += 1;
    }
}
