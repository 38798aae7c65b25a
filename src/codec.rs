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
    catch_unwind(AssertUnwindSafe(|| encode_checked(value)))
        .unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
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
    let unread = || {
        let wanted = std::any::type_name::<V>();
        let message = format!("the stored value cannot be read as `{wanted}`");
        Error::new(ErrorKind::Corrupt, message)
    };
    // The background task decodes too, when it reloads: a panic in a user's
    // `Deserialize` must not end it.
    let decoded = catch_unwind(|| match payload.encoding {
        Encoding::Json => serde_json::from_slice(&payload.bytes),
    });
    match decoded {
        Ok(value) => value.map_err(|e| unread().with_source(e)),
        Err(panic) => Err(unread().with_source(words_of(panic.as_ref()))),
    }
}

fn refused(message: &str) -> Error {
    Error::new(ErrorKind::Refused, message)
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let words = words_of(panic);
    refused(&format!("writing the value as JSON panicked: {words}"))
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
