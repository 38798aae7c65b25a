//! The form of a snapshot: one flat JSON object, an entry a line.

use std::{path::Path, sync::Arc, time::SystemTime};

use serde_json::value::RawValue;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use super::{
    disk::Disk,
    fault::corrupt,
    io::{Looks, read_whole},
    pairs::Pairs,
};
use crate::{
    codec::json::layout::{on_one_line, quoted, without_mark},
    error::Result,
    record::Revision,
};

/// A snapshot, as it was read.
pub(super) struct Snapshot {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: u128,
    pub(super) looks: Looks,
}

/// The latest time of writing that is believed: the end of the year 9999.
const MAX_MODIFIED: u64 = 253_402_300_799_999;

impl Snapshot {
    /// Reads the file; none if there is none.
    pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Self>> {
        let Some((bytes, looks)) = read_whole(disk, path)? else {
            return Ok(None);
        };
        let digest = xxh3_128(&bytes);
        Ok(Some(Self {
            bytes,
            digest,
            looks,
        }))
    }

    /// The revision of what someone else wrote into it: the time of that, as
    /// commits take theirs. It is the same as often as the file is read, until
    /// someone writes to it again.
    pub(super) fn written(&self) -> Revision {
        let since_1970 = self.looks.modified.duration_since(SystemTime::UNIX_EPOCH);
        let millis = since_1970.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        Revision::new(millis.clamp(1, MAX_MODIFIED))
    }

    /// Its entries: key, where the text of the value is, and the text.
    pub(super) fn entries(&self, path: &Path) -> Result<Vec<(Arc<str>, u64, &str)>> {
        let text = without_mark(&self.bytes);
        let pairs: Pairs<&RawValue> = serde_json::from_slice(text).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            corrupt(
                path,
                &format!("it is not one JSON object ({place})"),
                "mend the file, or move it away together with its .meta file",
            )
            .with_source(error)
        })?;
        let start = self.bytes.as_ptr().addr();
        let entries = pairs.0.into_iter().map(|(key, value)| {
            let text = value.get();
            (key, (text.as_ptr().addr() - start) as u64, text)
        });
        Ok(entries.collect())
    }
}

/// Lays out a snapshot piece by piece, and knows its digest in the end.
pub(super) struct Layout {
    digest: Xxh3Default,
    bytes: u64,
    is_empty: bool,
}

impl Layout {
    pub(super) fn new() -> Self {
        Self {
            digest: Xxh3Default::new(),
            bytes: 0,
            is_empty: true,
        }
    }

    /// Adds a line for this entry; returns where in the snapshot the text of
    /// its value is, and how long it is there.
    pub(super) fn entry(&mut self, out: &mut Vec<u8>, key: &str, text: &str) -> (u64, usize) {
        let from = out.len();
        out.extend(if self.is_empty {
            &b"{\n  "[..]
        } else {
            b",\n  "
        });
        out.extend(quoted(key).as_bytes());
        out.extend(b": ");
        let text = on_one_line(text);
        let offset = self.bytes + (out.len() - from) as u64;
        out.extend(text.as_bytes());
        self.is_empty = false;
        self.count(&out[from..]);
        (offset, text.len())
    }

    /// Ends the snapshot, and returns its digest.
    pub(super) fn end(mut self, out: &mut Vec<u8>) -> u128 {
        let end: &[u8] = if self.is_empty { b"{}\n" } else { b"\n}\n" };
        out.extend(end);
        self.count(end);
        self.digest.digest128()
    }

    fn count(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}
