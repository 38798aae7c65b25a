//! Journals: files that begin with a header, and to which checked frames are appended.
//!
//! Integers are little-endian. A header is a magic number, the format, the length of the
//! body, the body, and a checksum of all of these. A frame is a magic number, the id of the
//! journal, the number of the frame, the length and the checksum of the payload, a checksum
//! of these five, and the payload.
//!
//! A frame is written only after all earlier ones are durable, so a crash can tear only the
//! last one. A broken frame that is followed by another one was complete once: that is damage.

use bytes::Buf;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) mod writing;

/// The first byte of headers and frames. It does not occur in UTF-8 text, so no key and no
/// value looks like them.
pub(crate) const FIRST: u8 = 0xff;
const FRAME_MAGIC: [u8; 8] = *b"\xffPFRAM\xfe\n";

/// The length of a frame without its payload.
pub(crate) const FRAME_HEADER: usize = 48;

/// The offset of the body of a header: after the magic number, the format and the length.
pub(crate) const BODY_AT: usize = 8 + 4 + 8;

/// Appends bytes, preceded by their length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

/// Reads bytes that [`put_bytes`] wrote.
pub(crate) fn read_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = usize::try_from(from.try_get_u64_le().ok()?).ok()?;
    let (bytes, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(bytes)
}

/// Reads text that [`put_bytes`] wrote.
pub(crate) fn read_text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(read_bytes(from)?).ok()
}

/// The header of a journal of the kind with this magic number.
pub(crate) fn header(magic: [u8; 8], format: u32, body: &[u8]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend(format.to_le_bytes());
    put_bytes(&mut out, body);
    out.extend(xxh3_64(&out).to_le_bytes());
    out
}

/// A header, as it was read.
pub(crate) struct Head<'a> {
    pub(crate) format: u32,
    pub(crate) body: &'a [u8],
    /// Where the header ends and the frames begin.
    pub(crate) end: usize,
}

impl<'a> Head<'a> {
    /// The header at the start of these bytes; `None` if there is none, or it is damaged.
    pub(crate) fn read(magic: [u8; 8], bytes: &'a [u8]) -> Option<Self> {
        let mut from = bytes.strip_prefix(&magic)?;
        let format = from.try_get_u32_le().ok()?;
        let body = read_bytes(&mut from)?;
        let checked = BODY_AT + body.len();
        let is_whole = from.try_get_u64_le().ok()? == xxh3_64(&bytes[..checked]);
        is_whole.then_some(Self {
            format,
            body,
            end: checked + 8,
        })
    }
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

/// The complete frames of a journal.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    /// The payloads, and their offsets.
    pub(crate) payloads: Vec<(usize, &'a [u8])>,
    /// Where the last complete frame ends. The rest is a torn frame.
    pub(crate) end: usize,
}

impl<'a> Frames<'a> {
    /// Reads the frames of a journal from `start` on.
    ///
    /// # Errors
    ///
    /// The offset of a damaged frame: others follow it.
    pub(crate) fn read(bytes: &'a [u8], start: usize, journal: u64) -> Result<Self, usize> {
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
        if frame_follows(bytes, end, journal, payloads.len() as u64) {
            return Err(end);
        }
        Ok(Self { payloads, end })
    }
}

/// Whether a frame of this journal follows the place where the frame with this number
/// should be, but is missing or incomplete.
fn frame_follows(bytes: &[u8], end: usize, journal: u64, number: u64) -> bool {
    let torn = FrameHeader::read(&bytes[end..]);
    let is_next = |torn: &FrameHeader| torn.journal == journal && torn.number == number;
    let after = end + usize::from(torn.is_some_and(|torn| is_next(&torn)));
    has_frame(&bytes[after..], journal)
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
