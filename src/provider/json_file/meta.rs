//! The form of a meta file: all that a snapshot does not say of its entries,
//! as JSON text with a checksum at its end.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, de::Error as SerdeError};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3Default;

use super::{
    disk::{Disk, NewFile},
    ending::{CHECKSUM, checked, number_of, parted},
    fault::corrupt,
    index::Stamp,
    mark::Mark,
    pairs::Pairs,
    whole::{create, read_whole, sync, write},
};
use crate::{
    batch::{Committed, Skipped, WriterId},
    codec::json::{self, layout::quoted},
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    name::MapName,
    record::{Payload, Record, Revision},
};

const FORMAT: u32 = 1;

/// What to do about a meta file that cannot be used.
const REMEDY: &str = "put it back as it was, or remove it: the values stay, expiries and \
                      revisions are then unknown";

/// How many bytes are gathered before they are written.
const CHUNK: usize = 1 << 20;

/// What a meta file says of the map as a whole.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) map: MapName,
    /// The last revision that was given.
    pub(super) counter: Revision,
    /// None if an earlier version of this crate wrote the file.
    pub(super) incarnation: Option<Incarnation>,
    /// The digest of the snapshot that it goes with; none for none.
    pub(super) snapshot: Option<u128>,
    /// The journal that was folded into both of them; 0 for none.
    pub(super) folded: u64,
    pub(super) writers: Writers,
}

/// The last batch applied of each writer.
pub(super) type Writers = HashMap<WriterId, Last>;

/// The last batch applied of a writer.
#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) sequence: u64,
    /// When, by this machine's clock.
    pub(super) on: Stamp,
    pub(super) answer: Committed,
}

/// What a meta file says of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) revision: Revision,
    pub(super) updated: Stamp,
    pub(super) expires: Stamp,
    pub(super) fingerprint: u64,
    pub(super) schema: u32,
}

/// A meta file as it was read.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) head: Head,
    /// In the order of their keys.
    rows: Vec<(Arc<str>, Row)>,
    pub(super) checksum: u128,
    /// What follows it in the file.
    pub(super) mark: Mark,
    /// How long it is without what follows.
    pub(super) bytes: usize,
}

/// Revision, time of writing, expiry, fingerprint, shape.
type RowText = (u64, Option<i64>, Option<i64>, u64, u32);
/// Sequence, time, revision, what was skipped.
type LastText = (u64, Option<i64>, u64, Vec<(String, Option<RecordText>)>);
/// Text of the value, shape, revision, expiry, time of writing.
type RecordText = (String, u32, u64, Option<i64>, Option<i64>);

impl Meta {
    /// Reads the file; none if there is none.
    pub(super) fn read(disk: &dyn Disk, path: &Path, map: &MapName) -> Result<Option<Self>> {
        let Some((bytes, _)) = read_whole(disk, path)? else {
            return Ok(None);
        };
        let changed = || corrupt(path, "it is not as it was written", REMEDY).on_map(map);
        let (text, rest) = parted(&bytes).ok_or_else(changed)?;
        let checksum = checked(text).ok_or_else(changed)?;
        let mark = Mark::read(rest).ok_or_else(changed)?;
        let parsed = parse(text, path, map, (checksum, mark));
        let meta = parsed.unwrap_or_else(|error| {
            Err(corrupt(path, "it does not hold what it should", REMEDY).with_source(error))
        })?;
        check_map(path, meta.head.map.as_str(), map)?;
        Ok(Some(meta))
    }

    /// The highest number of a shape that any of its entries has.
    pub(super) fn newest_shape(&self) -> u32 {
        let shapes = self.rows.iter().map(|(_, row)| row.schema);
        shapes.max().unwrap_or_default()
    }

    /// What it says of that entry. Whoever asks in the order of the keys hands
    /// in where the one before was, and it is found at once.
    pub(super) fn row(&self, key: &str, before: &mut usize) -> Option<&Row> {
        let next = *before + 1;
        let is_next = self
            .rows
            .get(next)
            .is_some_and(|(other, _)| **other == *key);
        *before = if is_next {
            next
        } else {
            let found = self.rows.binary_search_by(|(other, _)| (**other).cmp(key));
            found.ok()?
        };
        self.rows.get(*before).map(|(_, row)| row)
    }
}

/// That a file of this map does not belong to another: where names are cut to
/// a digest, two of them might meet.
pub(super) fn check_map(path: &Path, found: &str, map: &MapName) -> Result<()> {
    if found == map.as_str() {
        return Ok(());
    }
    let message = format!(
        "{} belongs to the map {found:?}; use another name or another folder",
        path.display()
    );
    Err(Error::new(ErrorKind::Invalid, message).on_map(map))
}

fn parse(
    bytes: &[u8],
    path: &Path,
    map: &MapName,
    (checksum, mark): (u128, Mark),
) -> serde_json::Result<Result<Meta>> {
    let fields = Fields(serde_json::from_slice(bytes)?);
    let format: u32 = fields.get("format")?;
    if format != FORMAT {
        return Ok(Err(newer(path, format).on_map(map)));
    }
    let head = Head {
        map: MapName::parse(fields.get::<String>("map")?).map_err(SerdeError::custom)?,
        counter: Revision::new(fields.get("counter")?),
        incarnation: fields
            .get::<Option<String>>("incarnation")?
            .map(|digits| incarnation_of(&digits))
            .transpose()?,
        snapshot: fields
            .get::<Option<String>>("snapshot")?
            .map(|d| hex(&d))
            .transpose()?,
        folded: fields.get("folded")?,
        writers: writers(fields.get("writers")?, map)?,
    };
    let rows: Pairs<RowText> = fields.get("entries")?;
    let rows = rows.0.into_iter().map(|(key, row)| (key, row_of(row)));
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Ok(Meta {
        head,
        rows,
        checksum,
        mark,
        bytes: bytes.len(),
    }))
}

/// The map that these bytes of a meta file belong to.
pub(super) fn map_named_in(bytes: &[u8]) -> Option<MapName> {
    let fields = Fields(serde_json::from_slice(parted(bytes)?.0).ok()?);
    MapName::parse(fields.get::<String>("map").ok()?).ok()
}

/// A file that was written by a later version of this crate.
pub(super) fn newer(path: &Path, format: u32) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "{} is of format {format}, and this version of the program knows {FORMAT}; \
             open it with the version that wrote it",
            path.display()
        ),
    )
}

struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    fn get<T: Deserialize<'a>>(&self, field: &str) -> serde_json::Result<T> {
        let text = self.0.get(field).map_or("null", |value| value.get());
        serde_json::from_str(text)
    }
}

fn hex(digits: &str) -> serde_json::Result<u128> {
    number_of(digits).ok_or_else(|| SerdeError::custom("not a hexadecimal number"))
}

fn incarnation_of(digits: &str) -> serde_json::Result<Incarnation> {
    let number = u64::from_str_radix(digits, 16);
    number.map(Incarnation::new).map_err(SerdeError::custom)
}

fn row_of((revision, updated, expires, fingerprint, schema): RowText) -> Row {
    Row {
        revision: Revision::new(revision),
        updated: Stamp::from_millis(updated),
        expires: Stamp::from_millis(expires),
        fingerprint,
        schema,
    }
}

fn writers(found: BTreeMap<String, LastText>, map: &MapName) -> serde_json::Result<Writers> {
    let lasts = found.into_iter().map(|(writer, last)| {
        let (sequence, on, revision, skipped) = last;
        let skipped = skipped
            .into_iter()
            .map(|(key, found)| skip_of(key, found, map));
        let answer = Committed::at(Revision::new(revision)).with_skipped(skipped.collect());
        let on = Stamp::from_millis(on);
        let last = Last {
            sequence,
            on,
            answer,
        };
        Ok((WriterId::new(hex(&writer)?), last))
    });
    lasts.collect()
}

fn skip_of(key: String, found: Option<RecordText>, map: &MapName) -> Skipped {
    let key: Arc<str> = key.into();
    let found = found.map(|(text, schema, revision, expires, updated)| {
        let payload = Payload::json(text).with_schema(schema);
        Record::new(key.clone(), Some(payload), Revision::new(revision))
            .with_expires_at(Stamp::from_millis(expires).time())
            .with_updated_at(Stamp::from_millis(updated).time())
    });
    Skipped::new(map.clone(), key, found)
}

/// Writes a meta file, for those who may read and write `like`: it repeats keys,
/// and whole values. Returns it, safe on the disk but not in its place, and its
/// checksum.
pub(super) fn written<'a>(
    disk: &dyn Disk,
    path: &Path,
    like: &Path,
    head: &Head,
    rows: impl Iterator<Item = (&'a str, Row)>,
) -> Result<(Box<dyn NewFile>, u128)> {
    let mut file = create(disk, path, like)?;
    let mut digest = Xxh3Default::new();
    let mut out = head_text(head);
    let mut between = "\n";
    for (key, row) in rows {
        out.push_str(between);
        out.push_str(&row_text(key, &row));
        between = ",\n";
        if out.len() >= CHUNK {
            digest.update(out.as_bytes());
            write(&mut *file, path, out.as_bytes())?;
            out.clear();
        }
    }
    out.push_str("\n},\n");
    digest.update(out.as_bytes());
    let checksum = digest.digest128();
    out.push_str(CHECKSUM.0);
    out.push_str(&digest_text(checksum));
    out.push_str(CHECKSUM.1);
    write(&mut *file, path, out.as_bytes())?;
    sync(&mut *file, path)?;
    Ok((file, checksum))
}

fn head_text(head: &Head) -> String {
    let snapshot = head
        .snapshot
        .map_or("null".to_owned(), |d| format!("\"{d:032x}\""));
    let incarnation = head.incarnation.map_or("null".to_owned(), |incarnation| {
        format!("\"{incarnation}\"")
    });
    let mut writers: Vec<_> = head.writers.iter().collect();
    writers.sort_unstable_by_key(|(writer, _)| **writer);
    let writers: Vec<_> = writers
        .into_iter()
        .map(|(w, last)| writer_text(*w, last))
        .collect();
    format!(
        "{{\n\"format\": {FORMAT},\n\"map\": {},\n\"counter\": {},\n\"incarnation\": {incarnation},\n\
         \"snapshot\": {snapshot},\n\
         \"folded\": {},\n\"writers\": {{{}}},\n\"entries\": {{",
        quoted(head.map.as_str()),
        head.counter,
        head.folded,
        writers.join(",\n"),
    )
}

fn writer_text(writer: WriterId, last: &Last) -> String {
    let skipped: Vec<_> = last.answer.skipped.iter().map(skipped_text).collect();
    format!(
        "\"{writer}\": [{},{},{},[{}]]",
        last.sequence,
        stamp_text(last.on),
        last.answer.revision.unwrap_or_default(),
        skipped.join(",")
    )
}

fn skipped_text(skipped: &Skipped) -> String {
    let key = quoted(&skipped.key);
    let found = skipped.found.as_ref();
    let Some((found, payload)) = found.and_then(|f| Some((f, f.value.as_ref()?))) else {
        return format!("[{key},null]");
    };
    // What is stored was found to be JSON text, and so UTF-8, when it came in.
    let text = json::text(&payload.bytes).unwrap_or("null");
    format!(
        "[{key},[{},{},{},{},{}]]",
        quoted(text),
        payload.schema,
        found.revision,
        stamp_text(found.expires_at.into()),
        stamp_text(found.updated_at.into()),
    )
}

fn row_text(key: &str, row: &Row) -> String {
    format!(
        "{}: [{},{},{},{},{}]",
        quoted(key),
        row.revision,
        stamp_text(row.updated),
        stamp_text(row.expires),
        row.fingerprint,
        row.schema,
    )
}

fn digest_text(digest: u128) -> String {
    format!("{digest:032x}")
}

fn stamp_text(stamp: Stamp) -> String {
    let millis = stamp.millis();
    millis.map_or_else(|| "null".to_owned(), |millis| millis.to_string())
}
