//! Torn frames at the end of a journal: they are set aside, not applied.

use crate::{
    disk::file::Replacement,
    error::Result,
    provider::json_file::files::{Files, Folder},
    trace::PROVIDER,
};

/// Stores the bytes of a torn frame beside the journal, under a new name. After a crash
/// before they are removed from the journal, they are stored once more.
pub(crate) fn set_aside(folder: &Folder, files: &Files, torn: &[u8]) -> Result<()> {
    let names = folder.list()?;
    let mut number = 0;
    while names.contains(&files.torn_name(number)) {
        number += 1;
    }
    let path = folder.path.join(files.torn_name(number));
    let mut file = Replacement::create(&*folder.disk, &path, &files.snapshot)?;
    file.write(torn)?;
    file.sync()?;
    file.replace()?;
    folder.sync()?;
    tracing::warn!(
        target: PROVIDER,
        journal = %files.journal.display(),
        kept_as = %path.display(),
        bytes = torn.len(),
        "the last batch in the journal is incomplete, because of a crash or damage; \
         it is set aside and not applied",
    );
    Ok(())
}
