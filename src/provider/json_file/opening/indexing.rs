//! Builds the index of a map from its snapshot and its meta file.

use std::path::Path;

use super::damage;
use crate::{
    codec::json::fingerprint,
    error::Result,
    provider::json_file::{
        format::{
            base64_text,
            meta::{Meta, Row},
            snapshot::Snapshot,
        },
        index::{Entry, Index, Place, Source, Stamp},
    },
    record::{Encoding, Revision},
};

/// Returns the entries of the snapshot at this path and, if the meta file was not
/// written for it, the fingerprints of their values in the same order.
///
/// A row of the meta file is valid as long as the value of its key has the row's
/// fingerprint. Entries without such a row get the revision `loaded`.
pub(crate) fn index(
    path: &Path,
    snapshot: &Snapshot,
    meta: Option<&Meta>,
    loaded: Revision,
) -> Result<(Index, Vec<u64>)> {
    let mut found = snapshot.entries(path)?;
    found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    if let Some(twins) = found.windows(2).find(|two| two[0].0 == two[1].0) {
        return Err(damage::twice(path, &twins[0].0));
    }
    let unknown = Unknown {
        revision: loaded,
        schema: meta.map_or(0, Meta::newest_schema),
    };
    let is_as_written = meta.is_some_and(|meta| meta.head.snapshot == Some(snapshot.digest));
    // Both are in the order of the keys, so one pass over both finds the rows.
    let mut rows = meta.iter().flat_map(|meta| &meta.rows).peekable();
    let mut entries = Vec::with_capacity(found.len());
    let mut fingerprints = Vec::new();
    for (key, offset, text) in found {
        let bytes = u32::try_from(text.len()).map_err(|_| damage::too_long(path, &key))?;
        let place = Place::new(Source::Snapshot, offset, bytes);
        while rows.next_if(|(before, _)| *before < key).is_some() {}
        let row = rows.next_if(|(same, _)| *same == key).map(|(_, row)| row);
        let fingerprint = (!is_as_written).then(|| fingerprint(text));
        fingerprints.extend(fingerprint);
        let entry = match row {
            Some(row) if fingerprint.is_none_or(|found| found == row.fingerprint) => {
                row.entry(place)
            }
            row => unknown.entry(row, text, place),
        };
        entries.push((key, entry));
    }
    // Built at once, the index is as dense as possible.
    Ok((entries.into_iter().collect(), fingerprints))
}

impl Row {
    fn entry(&self, place: Place) -> Entry {
        Entry {
            revision: self.revision,
            expires: self.expires,
            updated: self.updated,
            place: place.with_form(self.encoding, self.schema),
        }
    }
}

/// The fields of entries that the meta file does not describe.
struct Unknown {
    revision: Revision,
    /// The version of a new entry: the highest of the others, because it is assumed to
    /// be like them.
    schema: u32,
}

impl Unknown {
    /// The entry of a value that was added, or edited if its key has a row. An edited
    /// value keeps its schema version; and bytes stay bytes, as long as the text is
    /// base64. Everything else is JSON.
    fn entry(&self, row: Option<&Row>, text: &str, place: Place) -> Entry {
        let is_bytes = row.is_some_and(|row| row.encoding == Encoding::Bytes)
            && base64_text::decode(text.as_bytes()).is_some();
        let encoding = if is_bytes {
            Encoding::Bytes
        } else {
            Encoding::Json
        };
        let schema = row.map_or(self.schema, |row| row.schema);
        Entry {
            revision: self.revision,
            expires: Stamp::NONE,
            updated: Stamp::NONE,
            place: place.with_form(encoding, schema),
        }
    }
}
