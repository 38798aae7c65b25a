//! JSON text: everything this crate knows about it.
//!
//! # When two texts are the same
//!
//! Two texts are the same if they denote the same value, however it is written:
//!
//! - White space between tokens and the order of an object's fields are ignored. If a
//!   field occurs twice, the last one counts, as in decoding.
//! - Strings are compared by their characters, so `"\u00e9"` is `"é"`.
//! - Numbers are compared as decimals of any length: `1e2` is `100` is `100.0`
//!   and `-0` is `0`, but `0.1` is not `0.1000000000000000055`, and no digit of
//!   a large integer is lost.
//!
//! [`digest`] computes a number from the value, and [`same`] compares two texts by it.
//! A store may write a value in another way, but must not change it. Bytes that are not
//! JSON text are the same only if they are identical.

mod depth;
mod digest;
#[cfg(feature = "json")]
pub(crate) mod layout;
mod locate;
pub(crate) mod number;
mod strict;
pub(crate) mod tokens;
mod value_path;

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use self::strict::Strict;

#[cfg(feature = "json")]
pub(crate) use self::digest::fingerprint;
pub(crate) use self::{
    digest::digest,
    locate::{suspect, unwritable},
    value_path::ValuePath,
};

/// Writes the text of a value.
///
/// # Errors
///
/// If the value's `Serialize` fails, if it holds a NaN or an infinity, or if it
/// is nested more deeply than [`read`] reads. Part of the text may have been
/// written.
pub(crate) fn write<V: Serialize>(value: &V, out: impl io::Write) -> serde_json::Result<()> {
    let mut json = serde_json::Serializer::new(out);
    value.serialize(Strict::new(&mut json))
}

/// Reads a value from its text.
pub(crate) fn read<V: DeserializeOwned>(text: &[u8]) -> serde_json::Result<V> {
    serde_json::from_slice(text)
}

/// The text of the one JSON value in these bytes, without the white space around
/// it.
///
/// # Errors
///
/// If the bytes are not the text of one JSON value. It may be nested as deeply
/// as it is long.
pub(crate) fn text(bytes: &[u8]) -> serde_json::Result<&str> {
    serde_json::from_slice::<&RawValue>(bytes).map(RawValue::get)
}

/// Whether both texts denote the same value.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a == b || digest(a) == digest(b)
}
