//! Errors for damaged, missing and edited files, and their remedies.

use std::{path::Path, sync::Arc};

use crate::{disk::fault::corrupt, error::Error, provider::json_file::files::Files};

pub(crate) fn damaged(files: &Files, at: usize) -> Error {
    let problem = if at == 0 {
        "it is damaged at byte 0, where its header should be"
    } else {
        &format!("it is damaged at byte {at}, and complete batches follow")
    };
    let remedy = format!(
        "nothing was changed; restore a copy of it, or, to go on without its batches, remove it, \
         and the last line of {} if it says that a journal is in use",
        files.meta.display()
    );
    corrupt(&files.journal, problem, &remedy)
}

pub(crate) fn no_journal(files: &Files) -> Error {
    let problem = format!(
        "it is missing, but {} says that it is in use: it has batches that are nowhere else",
        files.meta.display()
    );
    let remedy = "nothing was changed; restore it, or, to go on without its batches, remove the last \
                  line of the .meta file, which says so";
    corrupt(&files.journal, &problem, remedy)
}

pub(crate) fn no_snapshot(files: &Files) -> Error {
    let problem = format!(
        "it is missing, but {} describes its entries",
        files.meta.display()
    );
    let remedy = "nothing was changed; restore it, or, to start with an empty map, remove the .meta \
                  file too";
    corrupt(&files.snapshot, &problem, remedy)
}

pub(crate) fn changed(file: &Path, journal: &Path) -> Error {
    let problem = format!(
        "it was changed, replaced or removed while changes to it are still in {}",
        journal.display()
    );
    corrupt(
        file,
        &problem,
        "nothing was overwritten; restore it as it was; or, to go on with the file as it is and \
         without these changes, remove the journal and the line `{\"journal\": \"in use\"}` at the \
         end of the .meta file",
    )
}

pub(crate) fn edited(file: &Path) -> Error {
    let problem = "another program wrote to it, or removed it, while the map was open";
    let remedy = "restore it as it was, and edit it only while no program has the map open";
    corrupt(file, problem, remedy)
}

pub(crate) fn twice(path: &Path, key: &Arc<str>) -> Error {
    let remedy = "remove all but one of them";
    corrupt(path, "a key occurs twice", remedy).on_keys([key.clone()])
}

pub(crate) fn too_long(path: &Path, key: &Arc<str>) -> Error {
    let problem = "a value is longer than 4 GiB";
    corrupt(path, problem, "shorten it").on_keys([key.clone()])
}
