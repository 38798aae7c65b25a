//! The header of a value that a layer stores in a form of its own.
//!
//! ```text
//! magic 4 | version 1 | kind 1 | length of the head 1 | head | checksum 4 | body
//! ```
//!
//! All integers are little-endian. The checksum covers everything before it. It tells a damaged
//! header from one that names a key or an algorithm that is not available: the former concerns
//! one record, the latter all of them.

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    error::{Error, ErrorKind},
    record::{Encoding, Payload},
};

/// The first bytes of a value in the form of a layer. The first of them never occurs in UTF-8.
pub(super) type Magic = [u8; 4];

/// The version of the layout.
pub(super) const VERSION: u8 = 1;

const FIXED: usize = size_of::<Magic>() + 3;
const CHECKSUM: usize = 4;

/// A value in the form of a layer.
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) head: &'a [u8],
    pub(super) body: &'a [u8],
}

/// A stored value, as a layer sees it.
pub(super) enum Parsed<'a> {
    /// The value does not begin with the magic.
    Plain,
    Damaged,
    /// A later version of the layer wrote it.
    Later(u8),
    Frame(Frame<'a>),
}

impl<'a> Frame<'a> {
    pub(super) fn parse(magic: Magic, payload: &'a Payload) -> Parsed<'a> {
        if !is_framed(magic, payload) {
            return Parsed::Plain;
        }
        match Self::checked(&payload.bytes) {
            None => Parsed::Damaged,
            Some((VERSION, frame)) => Parsed::Frame(frame),
            Some((version, _)) => Parsed::Later(version),
        }
    }

    fn checked(bytes: &'a [u8]) -> Option<(u8, Self)> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED>()?;
        let [.., version, kind, length] = *fixed;
        let (head, rest) = rest.split_at_checked(length.into())?;
        let (sum, body) = rest.split_first_chunk()?;
        let header = &bytes[..FIXED + head.len()];
        (*sum == checksum(header)).then_some((version, Self { kind, head, body }))
    }

    /// The header in a buffer with space for a body of that length. The head must not be longer
    /// than 255 bytes.
    pub(super) fn begin(magic: Magic, kind: u8, head: &[u8], body: usize) -> Vec<u8> {
        Self::of_version(VERSION, magic, kind, head, body)
    }

    pub(super) fn of_version(
        version: u8,
        magic: Magic,
        kind: u8,
        head: &[u8],
        body: usize,
    ) -> Vec<u8> {
        let mut frame = Vec::with_capacity(FIXED + head.len() + CHECKSUM + body);
        let length = u8::try_from(head.len()).unwrap_or(u8::MAX);
        frame.extend_from_slice(&magic);
        frame.extend_from_slice(&[version, kind, length]);
        frame.extend_from_slice(head);
        frame.extend_from_slice(&checksum(&frame));
        frame
    }
}

/// Whether the value begins with the magic. JSON never does.
pub(super) fn is_framed(magic: Magic, payload: &Payload) -> bool {
    payload.encoding == Encoding::Bytes && payload.bytes.starts_with(&magic)
}

fn checksum(header: &[u8]) -> [u8; CHECKSUM] {
    let [a, b, c, d, ..] = xxh3_64(header).to_le_bytes();
    [a, b, c, d]
}

/// The error for a value in a layout that this version of the crate does not know.
pub(super) fn unknown_form(layer: &str, what: u8) -> Error {
    let message = format!(
        "a value was written by a later version of the layer {layer} (form {what}); nothing was \
         overwritten; update the program"
    );
    Error::new(ErrorKind::Unsupported, message)
}

pub(super) fn byte_of(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Json => 0,
        Encoding::Bytes => 1,
    }
}

/// The payload with this encoding, of which [`byte_of`] is given.
pub(super) fn payload_of(encoding: u8, bytes: Vec<u8>) -> Option<Payload> {
    match encoding {
        0 => Some(Payload::json(bytes)),
        1 => Some(Payload::binary(bytes)),
        _ => None,
    }
}
