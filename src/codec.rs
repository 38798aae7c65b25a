//! A value to and from its JSON text.

mod finite;

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, ErrorKind, Result},
    record::{Encoding, Payload},
};

/// From this depth on `serde_json` does not read every value.
const MAX_DEPTH: usize = 128;

/// The longest text whose room is kept for the next value.
const KEPT: usize = 64 * 1024;

const UNWRITABLE: &str =
    "the value cannot be written as JSON; write another one to the key, or remove it";

thread_local! {
    /// Where a text grows, so that each is allocated once, in its length.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The JSON text of a value.
///
/// # Errors
///
/// `Refused` if the value's `Serialize` fails or panics, or if it holds a NaN
/// or an infinity, which JSON has no word for.
pub(crate) fn encode<V: Serialize>(value: &V) -> Result<Payload> {
    // A panic in a user's `Serialize` must cost one entry, not the task that
    // writes all of them. Nothing of ours is half changed by then.
    catch_unwind(AssertUnwindSafe(|| encode_checked(value))).unwrap_or_else(|panic| {
        let panicked = panicked(panic.as_ref());
        Err(refused(UNWRITABLE).with_source(panicked))
    })
}

fn encode_checked<V: Serialize>(value: &V) -> Result<Payload> {
    let mut text = ROOM.take();
    text.clear();
    let payload = encode_into(&mut text, value);
    if text.capacity() <= KEPT {
        ROOM.set(text);
    }
    payload
}

fn encode_into<V: Serialize>(text: &mut Vec<u8>, value: &V) -> Result<Payload> {
    serde_json::to_writer(&mut *text, value).map_err(|e| refused(UNWRITABLE).with_source(e))?;
    // serde_json writes a NaN as `null`, so only a text with a `null` in it
    // needs the second look.
    if text.windows(4).any(|four| four == b"null") {
        finite::check(value).map_err(|e| {
            refused(
                "the value holds a number that JSON has no word for, and would come back as null; \
                 write another one to the key, or remove it",
            )
            .with_source(e)
        })?;
    }
    // Without the room to grow, for as long as the payload is held.
    Ok(Payload::json(Bytes::copy_from_slice(text)))
}

/// That what was encoded can be read again: serde writes a value however deeply
/// it is nested, and reads none that is nested beyond its limit.
///
/// # Errors
///
/// `Refused` if it cannot.
pub(crate) fn check_depth<V: DeserializeOwned>(payload: &Payload) -> Result<()> {
    if !may_be_deep(&payload.bytes) {
        return Ok(());
    }
    // How deep is too deep depends on what reads it.
    decode::<V>(payload).map(drop).map_err(|e| {
        refused(
            "the value is nested so deeply that it could not be read again; write another one \
             to the key, or remove it",
        )
        .with_source(e)
    })
}

/// Text that is nested more deeply has more brackets than the limit, too; they
/// are counted in a fraction of the time that it took to write it.
fn may_be_deep(text: &[u8]) -> bool {
    let brackets = text.iter().filter(|byte| matches!(byte, b'[' | b'{'));
    brackets.count() >= MAX_DEPTH && depth(text) >= MAX_DEPTH
}

/// How deeply JSON text is nested, where it is deepest.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The value that this payload holds.
///
/// # Errors
///
/// `Corrupt` if the payload is not the JSON text of such a value, or if the
/// value's `Deserialize` panics.
pub(crate) fn decode<V: DeserializeOwned>(payload: &Payload) -> Result<V> {
    match payload.encoding {
        // A panic in a user's `Deserialize` must not end the task that reloads.
        Encoding::Json => catch_unwind(|| serde_json::from_slice(&payload.bytes))
            .map_err(|panic| unreadable::<V>().with_source(panicked(panic.as_ref())))?
            .map_err(|e| unreadable::<V>().with_source(e)),
    }
}

fn unreadable<V>() -> Error {
    let wanted = std::any::type_name::<V>();
    let message = format!("the stored value cannot be read as `{wanted}`");
    Error::new(ErrorKind::Corrupt, message)
}

fn refused(message: &str) -> Error {
    Error::new(ErrorKind::Refused, message)
}

/// What a panic said.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> String {
    let words = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    format!("it panicked: {words}")
}
