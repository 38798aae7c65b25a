//! Snapshots: a map as one flat JSON object with an entry per line.

use std::{path::Path, sync::Arc, time::SystemTime};

use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

use super::pairs::Pairs;
use crate::{
    codec::json::layout::without_mark,
    disk::{
        Disk,
        fault::corrupt,
        file::{Looks, read_whole},
    },
    error::Result,
    record::Revision,
};

/// A snapshot, as it was read.
pub(crate) struct Snapshot {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: u128,
    pub(crate) looks: Looks,
}

/// The maximum of a modification time in milliseconds: the end of the year 9999.
const MAX_MODIFIED: u64 = 253_402_300_799_999;

impl Snapshot {
    /// Reads the file; `None` if there is none.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Self>> {
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

    /// The revision of entries that another program wrote: the modification time, because
    /// commits take their revisions from the clock as well. It is the same for each read
    /// until the file is modified again.
    pub(crate) fn written(&self) -> Revision {
        let since_1970 = self.looks.modified.duration_since(SystemTime::UNIX_EPOCH);
        let millis = since_1970.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        Revision::new(millis.clamp(1, MAX_MODIFIED))
    }

    /// Its entries: the key, the offset of the value's text, and the text.
    pub(crate) fn entries(&self, path: &Path) -> Result<Vec<(Arc<str>, u64, &str)>> {
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
