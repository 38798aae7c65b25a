//! The line at the end of a meta file that says that a journal goes with it: a
//! journal that is missing is not taken for one that never was.

use std::path::Path;

use super::{
    disk::Disk,
    fault::fault,
    whole::{create, read_whole, replace, sync, write},
};
use crate::error::Result;

const LINE: &[u8] = b"{\"journal\": \"in use\"}\n";

/// How long the mark is.
pub(super) const BYTES: usize = LINE.len();

/// What follows the last byte of a meta file itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing: no batch is in a journal that was not folded into the file.
    Absent,
    /// A journal goes with the file.
    InUse,
    /// A line that was cut short. No batch was written to the journal it is of:
    /// the first one is written when the line is safe on the disk.
    Torn,
}

impl Mark {
    /// What these bytes say; none if they are no mark, nor what a loss of power
    /// leaves of one.
    pub(super) fn read(rest: &[u8]) -> Option<Self> {
        let is_left_of = |(found, written): (&u8, &u8)| found == written || *found == 0;
        match rest {
            [] => Some(Self::Absent),
            LINE => Some(Self::InUse),
            torn if torn.len() <= LINE.len() && torn.iter().zip(LINE).all(is_left_of) => {
                Some(Self::Torn)
            }
            _ => None,
        }
    }
}

/// Adds the mark to the meta file at that path, which has none. On return it is
/// safe on the disk.
pub(super) fn add(disk: &dyn Disk, path: &Path) -> Result<()> {
    let opened = disk.open_to_append(path);
    let mut file = opened.map_err(|error| fault("open", path, error))?;
    let added = file.append(LINE).and_then(|()| file.sync());
    added.map_err(|error| fault("write to", path, error))
}

/// Takes off what follows the first `bytes` of the meta file at that path: in a new
/// file, as open as `like`, since one whose sync failed is not to be written to
/// again. It is safe when the folder was synced.
pub(super) fn take_off(disk: &dyn Disk, path: &Path, like: &Path, bytes: usize) -> Result<()> {
    let Some((found, _)) = read_whole(disk, path)? else {
        return Ok(());
    };
    let mut file = create(disk, path, like)?;
    write(&mut *file, path, found.get(..bytes).unwrap_or(&found))?;
    sync(&mut *file, path)?;
    replace(file, path)
}
