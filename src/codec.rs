//! A value to and from its JSON text.

mod finite;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, ErrorKind, Result},
    record::{Encoding, Payload},
};

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
        Err(refused("the value cannot be written as JSON").with_source(panicked))
    })
}

fn encode_checked<V: Serialize>(value: &V) -> Result<Payload> {
    let text = serde_json::to_vec(value)
        .map_err(|e| refused("the value cannot be written as JSON").with_source(e))?;
    // serde_json writes a NaN as `null`, so only a text with a `null` in it
    // needs the second look.
    if text.windows(4).any(|four| four == b"null") {
        finite::check(value).map_err(|e| {
            refused(
                "the value holds a number that JSON has no word for; it would come back as null",
            )
            .with_source(e)
        })?;
    }
    // Without the room to grow, for as long as the payload is held.
    Ok(Payload::json(text.into_boxed_slice()))
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
