//! The format of a journal: its header, and a frame for each batch.

use bytes::Buf;

use crate::{
    journal::{BODY_AT, Frames, Head, header, put_bytes, read_text},
    name::MapName,
    record::Revision,
};

const MAGIC: [u8; 8] = *b"\xffPJRNL\xfe\n";

/// The format that is written. It adds kinds of changes to the frames of format 2, so
/// both are read.
pub(crate) const FORMAT: u32 = 3;
const OLDEST_FORMAT: u32 = 2;

/// The header of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Random; never 0.
    pub(crate) id: u64,
    pub(crate) map: String,
    /// The digest of the snapshot that its batches apply to; `None` without a snapshot.
    pub(crate) snapshot: Option<u128>,
    /// The checksum of the meta file that belongs to it.
    pub(crate) meta: Option<u128>,
    /// The revision of entries that the meta file does not describe.
    pub(crate) loaded: Revision,
}

impl Header {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(self.id.to_le_bytes());
        put_digest(&mut body, self.snapshot);
        put_digest(&mut body, self.meta);
        body.extend(self.loaded.get().to_le_bytes());
        put_bytes(&mut body, self.map.as_bytes());

        header(MAGIC, FORMAT, &body)
    }

    /// The header, or the number of another format, and where the header ends. `None`
    /// if there is no header.
    fn read(bytes: &[u8]) -> Option<(Result<Self, u32>, usize)> {
        let Head { format, body, end } = Head::read(MAGIC, bytes)?;
        if !(OLDEST_FORMAT..=FORMAT).contains(&format) {
            return Some((Err(format), end));
        }
        Some((Ok(Self::from_body(body)?), end))
    }

    fn from_body(mut body: &[u8]) -> Option<Self> {
        let from = &mut body;
        Some(Self {
            id: from.try_get_u64_le().ok()?,
            snapshot: read_digest(from)?,
            meta: read_digest(from)?,
            loaded: Revision::new(from.try_get_u64_le().ok()?),
            map: read_text(from)?.to_owned(),
        })
    }
}

fn put_digest(out: &mut Vec<u8>, digest: Option<u128>) {
    out.push(digest.is_some().into());
    out.extend(digest.unwrap_or_default().to_le_bytes());
}

/// The outer `None` means that the bytes end early.
#[expect(clippy::option_option, reason = "the two mean different things")]
fn read_digest(from: &mut &[u8]) -> Option<Option<u128>> {
    let is_some = from.try_get_u8().ok()? != 0;
    let digest = from.try_get_u128_le().ok()?;
    Some(is_some.then_some(digest))
}

/// The result of parsing the bytes of a journal.
#[derive(Debug)]
pub(crate) enum Parsed<'a> {
    /// A journal, complete up to `end`. The rest is a torn frame.
    Journal {
        header: Header,
        /// The payloads, and their offsets.
        payloads: Vec<(usize, &'a [u8])>,
        end: usize,
    },
    /// A frame with others after it is broken, or the header is. A journal is created with
    /// a complete header, so one without it was truncated later and may have held batches.
    Damaged { at: usize },
    /// Written by another version of this crate.
    OtherFormat { format: u32 },
}

impl<'a> Parsed<'a> {
    /// Parses the bytes of a journal.
    pub(crate) fn in_bytes(bytes: &'a [u8]) -> Self {
        let Some((header, start)) = Header::read(bytes) else {
            return Self::Damaged { at: 0 };
        };
        let header = match header {
            Ok(header) => header,
            Err(format) => return Self::OtherFormat { format },
        };
        match Frames::read(bytes, start, header.id) {
            Ok(Frames { payloads, end }) => Self::Journal {
                header,
                payloads,
                end,
            },
            Err(at) => Self::Damaged { at },
        }
    }
}

/// The number of bytes up to the end of the id.
pub(crate) const ID_ENDS: u64 = BODY_AT as u64 + 8;

/// The id of the journal that begins with these bytes.
pub(crate) fn id_in(bytes: &[u8]) -> Option<u64> {
    let mut id = bytes.strip_prefix(&MAGIC)?.get(BODY_AT - MAGIC.len()..)?;
    id.try_get_u64_le().ok()
}

/// The map that these bytes of a journal belong to.
pub(crate) fn map_named_in(bytes: &[u8]) -> Option<MapName> {
    let (header, _) = Header::read(bytes)?;
    MapName::parse(header.ok()?.map).ok()
}
