//! Seals values: encrypts them and binds them to their map and key.
//!
//! The head of a frame is the fingerprint of the key and its id. The body is the nonce, the
//! ciphertext and the tag. The plaintext is the encoding (1), the schema version (4) and the
//! value.

use chacha20poly1305::{AeadInOut, XNonce, aead::Generate};

use super::keys::{FINGERPRINT, Key, Keys};
use crate::{
    error::{Error, ErrorKind, Result},
    layer::frame::{self, Frame, Magic, Parsed, VERSION},
    name::MapName,
    record::Payload,
};

/// The first bytes of a sealed value.
const MAGIC: Magic = *b"\xffPfE";

const XCHACHA20_POLY1305: u8 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;

/// The encoding and the schema version.
const PREFIX: usize = 5;

/// A stored value, and the key that it needs.
pub(super) enum Sealed<'a> {
    /// It is not encrypted.
    Plain,
    Damaged,
    By(&'a Key, &'a [u8]),
}

/// Encrypts a value for this place.
///
/// # Errors
///
/// `Unavailable` if the operating system has no random numbers, `Refused` if the value is too
/// large for the cipher.
pub(super) fn seal(key: &Key, map: &MapName, entry: &str, payload: &Payload) -> Result<Payload> {
    let nonce = XNonce::try_generate().map_err(no_randomness)?;
    let mut head = key.fingerprint.to_vec();
    head.extend_from_slice(key.id.as_bytes());
    let length = NONCE + PREFIX + payload.bytes.len() + TAG;
    let mut sealed = Frame::begin(MAGIC, XCHACHA20_POLY1305, &head, length);
    sealed.extend_from_slice(&nonce);
    let start = sealed.len();
    sealed.push(frame::byte_of(payload.encoding));
    sealed.extend_from_slice(&payload.schema.to_le_bytes());
    sealed.extend_from_slice(&payload.bytes);
    let (place, text) = (place(map, entry), &mut sealed[start..]);
    let tag = key
        .cipher
        .encrypt_inout_detached(&nonce, &place, text.into());
    sealed.extend_from_slice(&tag.map_err(|_| too_large())?);
    Ok(Payload::binary(sealed).with_schema(payload.schema))
}

/// Finds the key of a stored value.
///
/// # Errors
///
/// `Unusable`, naming the id, if the key is missing or is not the one of that time;
/// `Unsupported` if a later version of the crate has encrypted the value.
pub(super) fn inspect<'a>(keys: &'a Keys, stored: &'a Payload) -> Result<Sealed<'a>> {
    let frame = match Frame::parse(MAGIC, stored) {
        Parsed::Plain => return Ok(Sealed::Plain),
        Parsed::Damaged => return Ok(Sealed::Damaged),
        Parsed::Later(version) => return Err(frame::unknown_form("Encrypted", version)),
        Parsed::Frame(frame) => frame,
    };
    if frame.kind != XCHACHA20_POLY1305 {
        return Err(frame::unknown_form("Encrypted", frame.kind));
    }
    let Some((fingerprint, id)) = frame.head.split_first_chunk::<FINGERPRINT>() else {
        return Ok(Sealed::Damaged);
    };
    let Ok(id) = std::str::from_utf8(id) else {
        return Ok(Sealed::Damaged);
    };
    let key = keys.find(id).ok_or_else(|| missing(keys, id))?;
    if key.fingerprint != *fingerprint {
        return Err(wrong(id));
    }
    Ok(Sealed::By(key, frame.body))
}

/// Decrypts a value of this place; `None` if it was damaged, changed, or sealed for another
/// place.
pub(super) fn unseal(key: &Key, map: &MapName, entry: &str, body: &[u8]) -> Option<Payload> {
    let (nonce, rest) = body.split_first_chunk::<NONCE>()?;
    let (text, tag) = rest.split_last_chunk::<TAG>()?;
    let mut text = text.to_vec();
    let opened = key.cipher.decrypt_inout_detached(
        nonce.into(),
        &place(map, entry),
        text.as_mut_slice().into(),
        tag.into(),
    );
    opened.ok()?;
    let (&[encoding, a, b, c, d], _) = text.split_first_chunk::<PREFIX>()?;
    text.drain(..PREFIX);
    let payload = frame::payload_of(encoding, text)?;
    Some(payload.with_schema(u32::from_le_bytes([a, b, c, d])))
}

/// The associated data: a value is valid only in its map and under its key. The lengths make
/// the encoding unambiguous.
fn place(map: &MapName, entry: &str) -> Vec<u8> {
    let mut place = vec![VERSION];
    for part in [map.as_str(), entry] {
        place.extend_from_slice(&(part.len() as u64).to_le_bytes());
        place.extend_from_slice(part.as_bytes());
    }
    place
}

fn missing(keys: &Keys, id: &str) -> Error {
    let message = format!(
        "a stored value is encrypted with the key {id:?}, which is missing; there are {keys:?}; \
         nothing was overwritten; add the key with `Keys::and`, or with `set_keys` while maps are \
         open"
    );
    Error::new(ErrorKind::Unusable, message)
}

fn wrong(id: &str) -> Error {
    let message = format!(
        "a stored value was encrypted with another key of the id {id:?}; nothing was overwritten; \
         pass that key under this id, and give the other one an id of its own"
    );
    Error::new(ErrorKind::Unusable, message)
}

fn no_randomness(cause: impl std::fmt::Display) -> Error {
    let message =
        format!("the operating system has no random numbers ({cause}); nothing was written");
    Error::new(ErrorKind::Unavailable, message).nothing_applied()
}

fn too_large() -> Error {
    Error::new(ErrorKind::Refused, "the value is too large to be encrypted")
}
