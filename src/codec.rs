//! Encodes values as the bytes that are stored, and decodes them.

pub(crate) mod json;

use std::{
    any::Any,
    cell::Cell,
    error::Error as StdError,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use self::json::ValuePath;
use crate::{
    error::{Error, ErrorKind, Result},
    record::{Encoding, Payload},
};

/// The capacity above which the buffer is dropped instead of reused.
const MAX_KEPT: usize = 64 * 1024;

thread_local! {
    /// The buffer in which a text is built. The payload is then allocated once, at its
    /// exact length.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

type Cause = Box<dyn StdError + Send + Sync>;

/// Encodes a value as JSON text.
///
/// # Errors
///
/// `Refused`, naming the type and the path to the fault, if the value's
/// `Serialize` fails or panics, if it holds a NaN or an infinity, or if it is
/// nested too deeply.
pub(crate) fn encode<V: Serialize>(value: &V) -> Result<Payload> {
    // A panic in a user's `Serialize` must cost one entry, not the task that writes all
    // of them. It leaves no state of this crate half changed.
    let encoded = catch_unwind(AssertUnwindSafe(|| encode_checked(value)));
    let encoded = encoded.unwrap_or_else(|panic| Err(panicked(panic.as_ref()).into()));
    encoded.map_err(|cause| {
        let path = catch_unwind(AssertUnwindSafe(|| json::unwritable(value)));
        let path = path.ok().flatten().unwrap_or_default();
        refused::<V>("cannot be written as JSON", &path, cause)
    })
}

fn encode_checked<V: Serialize>(value: &V) -> Result<Payload, Cause> {
    let mut text = BUFFER.take();
    text.clear();
    let written = json::write(value, &mut text);
    // Copied, because a payload may be held for long, and a copy has no spare capacity.
    let payload = written.map(|()| Payload::json(Bytes::copy_from_slice(&text)));
    if text.capacity() <= MAX_KEPT {
        BUFFER.set(text);
    }
    Ok(payload?)
}

/// Decodes a value.
///
/// # Errors
///
/// `Corrupt`, naming the type and the path to the fault, if the payload is not
/// the JSON text of such a value, or if the value's `Deserialize` panics.
pub(crate) fn decode<V: DeserializeOwned>(payload: &Payload) -> Result<V> {
    read(payload).map_err(|not_read| not_read.corrupt::<V>())
}

/// Decodes a value.
///
/// # Errors
///
/// The path to the part that cannot be read, and the cause.
pub(crate) fn read<V: DeserializeOwned>(payload: &Payload) -> Result<V, NotRead> {
    match payload.encoding {
        // A panic in a user's `Deserialize` must not end the task that reads.
        Encoding::Json => match catch_unwind(|| json::read(&payload.bytes)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(cause)) => Err(NotRead {
                path: unreadable_path::<V>(&payload.bytes).unwrap_or_default(),
                cause: cause.into(),
            }),
            Err(panic) => Err(NotRead {
                path: ValuePath::default(),
                cause: panicked(panic.as_ref()).into(),
            }),
        },
        Encoding::Bytes => Err(NotRead {
            path: ValuePath::default(),
            cause: "it is stored as bytes, not as JSON (a layer leaves damaged values as they are)"
                .into(),
        }),
    }
}

/// Whether two payloads hold one value. JSON is compared by its content, whatever its
/// formatting.
pub(crate) fn same(a: &Payload, b: &Payload) -> bool {
    a.encoding == b.encoding
        && match a.encoding {
            Encoding::Json => json::same(&a.bytes, &b.bytes),
            Encoding::Bytes => a.bytes == b.bytes,
        }
}

/// A digest of the value; equal for payloads that are [`same`].
pub(crate) fn digest(payload: &Payload) -> u128 {
    match payload.encoding {
        Encoding::Json => json::digest(&payload.bytes),
        Encoding::Bytes => xxh3_128_with_seed(&payload.bytes, u64::from(b'B')),
    }
}

/// The path to the part that cannot be read. Decodes again to find that path, because
/// it is rarely needed.
fn unreadable_path<V: DeserializeOwned>(text: &[u8]) -> Option<ValuePath> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let failed = AssertUnwindSafe(|| {
        let read: Result<V, _> = serde_path_to_error::deserialize(&mut json);
        read.err()
    });
    let failed = catch_unwind(failed).ok()??;
    Some(ValuePath::of(failed.path()))
}

/// The path to the part of a text that cannot be read, and the cause.
pub(crate) struct NotRead {
    path: ValuePath,
    cause: Cause,
}

impl NotRead {
    /// The error for a stored value.
    fn corrupt<V>(self) -> Error {
        let wanted = std::any::type_name::<V>();
        let message = format!(
            "the stored value cannot be read as `{wanted}`{}",
            at(&self.path)
        );
        Error::new(ErrorKind::Corrupt, message).with_source(self.cause)
    }

    /// Searches the value itself for the fault, which may locate it more closely than
    /// its text does.
    pub(crate) fn look_in<V: Serialize>(&mut self, value: &V) {
        let said = self.cause.to_string();
        let suspect = AssertUnwindSafe(|| json::suspect(value, &said, &self.path));
        if let Ok(Some(path)) = catch_unwind(suspect) {
            self.path = path;
        }
    }

    /// The error for a value that was about to be stored.
    pub(crate) fn refusal<V>(self) -> Error {
        let problem = "cannot be read back from its own JSON text";
        refused::<V>(problem, &self.path, self.cause)
    }
}

fn refused<V>(problem: &str, path: &ValuePath, cause: Cause) -> Error {
    let message = format!(
        "a value of the type `{}` {problem}{}, so it is not saved; write another one to the key, \
         or remove it",
        std::any::type_name::<V>(),
        at(path)
    );
    Error::new(ErrorKind::Refused, message).with_source(cause)
}

fn at(path: &ValuePath) -> String {
    if path.is_whole() {
        return String::new();
    }
    format!(" (at `{path}`)")
}

/// The message of a panic.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> String {
    let words = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    format!("it panicked: {words}")
}
