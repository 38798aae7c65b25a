//! The format of a meta file: JSON text with everything about the entries that is not in
//! the snapshot, and a checksum at its end.

use std::{mem, path::Path, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeTuple,
};
use serde_json::{ser::PrettyFormatter, value::RawValue};

use super::{
    pairs::Pairs,
    trailer::{self, Trailer},
};
use crate::{
    codec::json::layout::put_quoted,
    disk::{
        Disk,
        fault::corrupt,
        file::{Replacement, read_whole},
    },
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    name::MapName,
    provider::{
        json_file::index::Stamp,
        ledger::{Tombstones, Writers},
    },
    record::{Encoding, Revision},
};

/// The format that is written. Format 1 has neither encodings nor tombstones, and is still read.
pub(crate) const FORMAT: u32 = 2;
const OLDEST_FORMAT: u32 = 1;

/// The remedy for a meta file that cannot be used.
const REMEDY: &str = "put it back as it was, or remove it: the values stay, expiries and \
                      revisions are then unknown";

/// The number of bytes that are written at once.
const CHUNK: usize = 1 << 20;

/// The fields of a meta file. The entries and the tombstones are written behind the others,
/// row by row.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) format: u32,
    pub(crate) map: MapName,
    /// The revision of the last commit.
    pub(crate) counter: Revision,
    /// `None` if an earlier version of this crate wrote the file.
    pub(crate) incarnation: Option<Incarnation>,
    /// The digest of the snapshot that the file describes; `None` for no snapshot.
    #[serde(with = "hex")]
    pub(crate) snapshot: Option<u128>,
    /// The id of the journal that was compacted into both files; 0 for none.
    #[serde(rename = "folded")]
    pub(crate) compacted: u64,
    #[serde(deserialize_with = "writers")]
    pub(crate) writers: Writers,
    /// Empty in a file to be written, and once the file was read.
    #[serde(skip_serializing)]
    pub(crate) entries: Pairs<Row>,
    #[serde(skip_serializing)]
    pub(crate) tombstones: Option<Tombstones>,
}

/// Reads the writers. Those that an earlier version of this crate wrote in another form
/// are ignored, because they have ended: their maps were closed, or a journal of that
/// version exists, which is refused.
fn writers<'de, D: Deserializer<'de>>(from: D) -> Result<Writers, D::Error> {
    let text = <&RawValue>::deserialize(from)?;
    Ok(serde_json::from_str(text.get()).unwrap_or_default())
}

/// A digest as hexadecimal digits.
mod hex {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(crate) fn serialize<S: Serializer>(of: &Option<u128>, to: S) -> Result<S::Ok, S::Error> {
        of.map(|digest| format!("{digest:032x}")).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<u128>, D::Error> {
        let digits = Option::<String>::deserialize(from)?;
        let number = digits.map(|digits| u128::from_str_radix(&digits, 16));
        number.transpose().map_err(D::Error::custom)
    }
}

/// A row: the fields of an entry. It is written as a list in this order; the last field is
/// left out for JSON.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) revision: Revision,
    pub(crate) updated: Stamp,
    pub(crate) expires: Stamp,
    pub(crate) fingerprint: u64,
    pub(crate) schema: u32,
    #[serde(default, deserialize_with = "encoding")]
    pub(crate) encoding: Encoding,
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let is_bytes = self.encoding == Encoding::Bytes;
        let mut fields = to.serialize_tuple(5 + usize::from(is_bytes))?;
        fields.serialize_element(&self.revision)?;
        fields.serialize_element(&self.updated)?;
        fields.serialize_element(&self.expires)?;
        fields.serialize_element(&self.fingerprint)?;
        fields.serialize_element(&self.schema)?;
        if is_bytes {
            fields.serialize_element(BASE64)?;
        }
        fields.end()
    }
}

/// Marks a row whose value is bytes, stored as a text of base64.
const BASE64: &str = "base64";

fn encoding<'de, D: Deserializer<'de>>(from: D) -> Result<Encoding, D::Error> {
    match <&str>::deserialize(from)? {
        BASE64 => Ok(Encoding::Bytes),
        other => Err(D::Error::custom(format!("no encoding: {other}"))),
    }
}

/// A meta file, as it was read.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) head: Head,
    /// Sorted by key.
    pub(crate) rows: Vec<(Arc<str>, Row)>,
    /// `None` in format 1.
    pub(crate) tombstones: Option<Tombstones>,
    pub(crate) trailer: Trailer,
}

/// The fields that every format has.
#[derive(Deserialize)]
struct Name {
    format: u32,
    map: MapName,
}

impl Meta {
    /// Reads the file; `None` if there is none.
    pub(crate) fn read(disk: &dyn Disk, path: &Path, map: &MapName) -> Result<Option<Self>> {
        let Some((bytes, _)) = read_whole(disk, path)? else {
            return Ok(None);
        };
        let trailer = Trailer::checked(&bytes).ok_or_else(|| {
            let problem = "it is damaged";
            corrupt(path, problem, REMEDY)
        })?;
        let text = &bytes[..trailer.end];
        let mut head = Head::read(path, text)?;
        check_map(path, head.map.as_str(), map)?;
        let mut rows = mem::take(&mut head.entries.0);
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Some(Self {
            tombstones: head.tombstones.take(),
            head,
            rows,
            trailer,
        }))
    }

    /// The highest schema version of its entries.
    pub(crate) fn newest_schema(&self) -> u32 {
        let schemas = self.rows.iter().map(|(_, row)| row.schema);
        schemas.max().unwrap_or_default()
    }
}

/// The map that these bytes of a meta file belong to.
pub(crate) fn map_named_in(bytes: &[u8]) -> Option<MapName> {
    let text = &bytes[..Trailer::read(bytes)?.end];
    serde_json::from_slice(text).ok().map(|name: Name| name.map)
}

/// Checks that a file belongs to this map. Long names are shortened to a digest, and two of
/// them might collide.
pub(crate) fn check_map(path: &Path, found: &str, map: &MapName) -> Result<()> {
    if found == map.as_str() {
        return Ok(());
    }
    let message = format!(
        "{} belongs to the map {found:?}; use another name or another folder",
        path.display()
    );
    Err(Error::new(ErrorKind::Invalid, message))
}

/// The error for a file of another version of this crate.
pub(crate) fn other_format(path: &Path, format: u32, known: u32) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "{} is of format {format}, and this version of the program knows {known}; \
             open it with the version that wrote it",
            path.display()
        ),
    )
}

impl Head {
    /// Reads the text in one pass. If that fails, it may be of another format.
    fn read(path: &Path, text: &[u8]) -> Result<Self> {
        let read: Result<Self, _> = serde_json::from_slice(text);
        let format = match &read {
            Ok(head) => Some(head.format),
            Err(_) => serde_json::from_slice(text)
                .ok()
                .map(|name: Name| name.format),
        };
        match format {
            Some(other) if !(OLDEST_FORMAT..=FORMAT).contains(&other) => {
                Err(other_format(path, other, FORMAT))
            }
            _ => read.map_err(|error| {
                corrupt(path, "its content is not that of a meta file", REMEDY).with_source(error)
            }),
        }
    }

    /// One line per field, and the start of the entries.
    fn text(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = Vec::new();
        let lines = PrettyFormatter::with_indent(b"");
        self.serialize(&mut serde_json::Serializer::with_formatter(
            &mut text, lines,
        ))?;
        text.truncate(text.len() - "\n}".len());
        text.extend(b",\n\"entries\": {");
        Ok(text)
    }
}

/// Writes a meta file with the mode of the file `like`, because it repeats keys. Returns
/// the file, durable but not yet in place, and its checksum.
pub(crate) fn write<'a, 'r>(
    disk: &dyn Disk,
    path: &'a Path,
    like: &Path,
    head: &Head,
    rows: impl Iterator<Item = (&'r str, Row)>,
    tombstones: &Tombstones,
) -> Result<(Replacement<'a>, u128)> {
    let unwritable = |error: serde_json::Error| {
        let message = "the meta data of the map cannot be written as text";
        Error::new(ErrorKind::Corrupt, message).with_source(error)
    };
    let mut file = Replacement::create(disk, path, like)?;
    let mut out = head.text().map_err(unwritable)?;
    let mut between: &[u8] = b"\n";
    for (key, row) in rows {
        out.extend(between);
        put_quoted(&mut out, key);
        out.extend(b": ");
        serde_json::to_writer(&mut out, &row).map_err(unwritable)?;
        between = b",\n";
        if out.len() >= CHUNK {
            file.write(&out)?;
            out.clear();
        }
    }
    out.extend(b"\n},\n\"tombstones\": ");
    serde_json::to_writer(&mut out, tombstones).map_err(unwritable)?;
    out.extend(b",\n");
    file.write(&out)?;
    let checksum = file.digest();
    file.write(trailer::text(checksum).as_bytes())?;
    file.sync()?;
    Ok((file, checksum))
}
