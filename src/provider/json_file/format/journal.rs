//! The format of a journal: a header, and a frame for each batch.
//!
//! Integers are little-endian. A header is a magic number, the format, the length of the
//! body, the body, and a checksum of all of these. A frame is a magic number, the id of the
//! journal, the number of the frame, the length and the checksum of the payload, a checksum
//! of these five, and the payload.

use bytes::Buf;
use xxhash_rust::xxh3::xxh3_64;

use super::frame::{put_bytes, read_bytes, read_text};
use crate::{name::MapName, record::Revision};

/// The first byte of headers and frames. It does not occur in UTF-8 text, so no key and no
/// value looks like them.
pub(crate) const FIRST: u8 = 0xff;
const HEADER_MAGIC: [u8; 8] = *b"\xffPJRNL\xfe\n";
const FRAME_MAGIC: [u8; 8] = *b"\xffPFRAM\xfe\n";

/// The format that is written. It adds kinds of changes to the frames of format 2, so
/// both are read.
pub(crate) const FORMAT: u32 = 3;
const OLDEST_FORMAT: u32 = 2;

/// The length of a frame without its payload.
pub(crate) const FRAME_HEADER: usize = 48;

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

        let mut out = HEADER_MAGIC.to_vec();
        out.extend(FORMAT.to_le_bytes());
        put_bytes(&mut out, &body);
        out.extend(xxh3_64(&out).to_le_bytes());
        out
    }

    /// The header, or the number of another format, and where the header ends. `None`
    /// if there is no header.
    fn read(bytes: &[u8]) -> Option<(Result<Self, u32>, usize)> {
        let mut from = bytes.strip_prefix(&HEADER_MAGIC)?;
        let format = from.try_get_u32_le().ok()?;
        let body = read_bytes(&mut from)?;
        let checked = HEADER_MAGIC.len() + 4 + 8 + body.len();
        if from.try_get_u64_le().ok()? != xxh3_64(&bytes[..checked]) {
            return None;
        }
        if !(OLDEST_FORMAT..=FORMAT).contains(&format) {
            return Some((Err(format), checked + 8));
        }
        Some((Ok(Self::from_body(body)?), checked + 8))
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

/// A frame around this payload.
pub(crate) fn frame(journal: u64, number: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_HEADER + payload.len());
    out.extend(FRAME_MAGIC);
    out.extend(journal.to_le_bytes());
    out.extend(number.to_le_bytes());
    out.extend((payload.len() as u64).to_le_bytes());
    out.extend(xxh3_64(payload).to_le_bytes());
    out.extend(xxh3_64(&out).to_le_bytes());
    out.extend(payload);
    out
}

/// The result of parsing the bytes of a journal.
#[derive(Debug)]
pub(crate) enum Parsed<'a> {
    /// A journal, complete up to `end`. The rest is a torn frame.
    Journal {
        header: Header,
        /// The payloads, and their offsets.
        payloads: Payloads<'a>,
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
    ///
    /// A frame is written only after all earlier ones are durable, so only the last one can be
    /// torn. A broken frame that is followed by the header of another one was complete once.
    pub(crate) fn in_bytes(bytes: &'a [u8]) -> Self {
        let Some((header, start)) = Header::read(bytes) else {
            return Self::Damaged { at: 0 };
        };
        let header = match header {
            Ok(header) => header,
            Err(format) => return Self::OtherFormat { format },
        };
        let (payloads, end) = read_frames(bytes, start, header.id);
        if frame_follows(bytes, end, &header, payloads.len()) {
            return Self::Damaged { at: end };
        }
        Self::Journal {
            header,
            payloads,
            end,
        }
    }
}

/// The offset of the id: after the magic number, the format and the length.
const ID_AT: usize = HEADER_MAGIC.len() + 4 + 8;

/// The number of bytes up to the end of the id.
pub(crate) const ID_ENDS: u64 = ID_AT as u64 + 8;

/// The id of the journal that begins with these bytes.
pub(crate) fn id_in(bytes: &[u8]) -> Option<u64> {
    let header = bytes.strip_prefix(&HEADER_MAGIC)?;
    let mut id = header.get(ID_AT - HEADER_MAGIC.len()..)?;
    id.try_get_u64_le().ok()
}

/// The map that these bytes of a journal belong to.
pub(crate) fn map_named_in(bytes: &[u8]) -> Option<MapName> {
    let (header, _) = Header::read(bytes)?;
    MapName::parse(header.ok()?.map).ok()
}

type Payloads<'a> = Vec<(usize, &'a [u8])>;

/// The complete frames from `start` on, and where they end.
fn read_frames(bytes: &[u8], start: usize, journal: u64) -> (Payloads<'_>, usize) {
    let mut payloads = Vec::new();
    let mut end = start;
    while let Some(header) = FrameHeader::read(&bytes[end..]) {
        let number = payloads.len() as u64;
        let Some(payload) = header.payload(&bytes[end..], journal, number) else {
            break;
        };
        payloads.push((end + FRAME_HEADER, payload));
        end += FRAME_HEADER + payload.len();
    }
    (payloads, end)
}

/// Whether a frame of this journal follows the place where the frame with this number
/// should be, but is missing or incomplete.
fn frame_follows(bytes: &[u8], end: usize, journal: &Header, number: usize) -> bool {
    let torn = FrameHeader::read(&bytes[end..]);
    let is_next = |torn: &FrameHeader| torn.journal == journal.id && torn.number == number as u64;
    let after = end + usize::from(torn.is_some_and(|torn| is_next(&torn)));
    has_frame(&bytes[after..], journal.id)
}

fn has_frame(bytes: &[u8], journal: u64) -> bool {
    let mut places = bytes.windows(FRAME_HEADER).filter_map(FrameHeader::read);
    places.any(|header| header.journal == journal)
}

struct FrameHeader {
    journal: u64,
    number: u64,
    bytes: u64,
    checksum: u64,
}

impl FrameHeader {
    /// The header at the start of these bytes; `None` if there is none, or it is damaged.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut from = bytes.strip_prefix(&FRAME_MAGIC)?;
        let header = Self {
            journal: from.try_get_u64_le().ok()?,
            number: from.try_get_u64_le().ok()?,
            bytes: from.try_get_u64_le().ok()?,
            checksum: from.try_get_u64_le().ok()?,
        };
        let checksum = from.try_get_u64_le().ok()?;
        (checksum == xxh3_64(&bytes[..FRAME_HEADER - 8])).then_some(header)
    }

    /// The payload of this frame, if it is that frame and complete.
    fn payload<'a>(&self, frame: &'a [u8], journal: u64, number: u64) -> Option<&'a [u8]> {
        if self.journal != journal || self.number != number {
            return None;
        }
        let bytes = usize::try_from(self.bytes).ok()?;
        let payload = frame.get(FRAME_HEADER..)?.get(..bytes)?;
        (xxh3_64(payload) == self.checksum).then_some(payload)
    }
}
