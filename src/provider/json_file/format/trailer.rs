//! The end of a meta file: the checksum of everything before it, and optionally a line
//! that marks the journal as in use. With the mark, a missing journal is not mistaken
//! for one that never existed.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use crate::{
    disk::{
        Disk,
        fault::fault,
        file::{OpenFile, Replacement, read_whole},
    },
    error::Result,
};

/// The text around the digits of the checksum.
const CHECKSUM: (&str, &str) = ("\"checksum\": \"", "\"\n}\n");
const DIGITS: usize = 32;

const IN_USE: &[u8] = b"{\"journal\": \"in use\"}\n";

/// The maximum size of a trailer without its first field name.
pub(crate) const MAX_BYTES: u64 = (DIGITS + CHECKSUM.1.len() + IN_USE.len()) as u64;

/// The end of a meta file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trailer {
    pub(crate) checksum: u128,
    pub(crate) mark: Mark,
    /// Where the checksum ends and the mark begins.
    pub(crate) end: usize,
}

/// Whether a journal belongs to a meta file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// All batches are in the meta file and its snapshot.
    Absent,
    /// A journal belongs to the file.
    InUse,
    /// The line is incomplete. No batch was written to the journal: the first one is
    /// written once the line is durable.
    Torn,
}

impl Trailer {
    /// Reads the trailer at the end of these bytes; `None` if there is none. The checksum
    /// is not checked.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let last = CHECKSUM.1.as_bytes();
        let digits_end = bytes.windows(last.len()).rposition(|found| found == last)?;
        let digits = bytes.get(digits_end.checked_sub(DIGITS)?..digits_end)?;
        let checksum = u128::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        let end = digits_end + last.len();
        let mark = Mark::read(&bytes[end..])?;
        Some(Self {
            checksum,
            mark,
            end,
        })
    }

    /// The trailer of a complete file, if the checksum matches.
    pub(crate) fn checked(file: &[u8]) -> Option<Self> {
        let trailer = Self::read(file)?;
        let body = file[..trailer.end].strip_suffix(text(trailer.checksum).as_bytes())?;
        (xxh3_128(body) == trailer.checksum).then_some(trailer)
    }
}

/// The text of a trailer with this checksum, without a mark.
pub(crate) fn text(checksum: u128) -> String {
    format!("{}{checksum:032x}{}", CHECKSUM.0, CHECKSUM.1)
}

impl Mark {
    /// The mark to assume if the journal has no frames: all batches are in the meta file
    /// and its snapshot, and a mark has to be removed.
    pub(crate) fn without_frames(self) -> Self {
        match self {
            Self::InUse => Self::Torn,
            other => other,
        }
    }

    /// `None` if the bytes are neither a mark nor the remains of one after a power
    /// loss: its beginning, or zeros instead of some of its bytes.
    fn read(rest: &[u8]) -> Option<Self> {
        let is_left_of = |(found, written): (&u8, &u8)| found == written || *found == 0;
        match rest {
            [] => Some(Self::Absent),
            IN_USE => Some(Self::InUse),
            torn if torn.len() <= IN_USE.len() && torn.iter().zip(IN_USE).all(is_left_of) => {
                Some(Self::Torn)
            }
            _ => None,
        }
    }
}

/// Marks the meta file at that path, durably.
pub(crate) fn add_mark(disk: &dyn Disk, path: &Path) -> Result<()> {
    let mut meta = OpenFile::open_to_append(disk, path)?;
    let added = meta.file.append(IN_USE).and_then(|()| meta.file.sync());
    added.map_err(|error| fault("write to", path, error))
}

/// Replaces the meta file at that path with its first `end` bytes. It is a new file,
/// because a file whose sync failed must not be written to again. It is durable once the
/// folder is synced.
pub(crate) fn remove_mark(disk: &dyn Disk, path: &Path, like: &Path, end: usize) -> Result<()> {
    let Some((found, _)) = read_whole(disk, path)? else {
        return Ok(());
    };
    let mut file = Replacement::create(disk, path, like)?;
    file.write(found.get(..end).unwrap_or(&found))?;
    file.sync()?;
    file.replace()
}
