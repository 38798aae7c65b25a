//! A value to and from its JSON text.

mod guard;
mod place;
mod room;
mod walk;

use std::{
    any::Any,
    cell::Cell,
    error::Error as StdError,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use self::{guard::Guard, place::Place};
use crate::{
    error::{Error, ErrorKind, Result},
    record::{Encoding, Payload},
};

/// The longest text whose room is kept for the next value.
const KEPT: usize = 64 * 1024;

thread_local! {
    /// Where a text grows, so that each is allocated once, in its length.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

type Cause = Box<dyn StdError + Send + Sync>;

/// The JSON text of a value.
///
/// # Errors
///
/// `Refused`, naming the type and the place, if the value's `Serialize` fails or
/// panics, if it holds a NaN or an infinity, or if it is nested too deeply.
pub(crate) fn encode<V: Serialize>(value: &V) -> Result<Payload> {
    // A panic in a user's `Serialize` must cost one entry, not the task that
    // writes all of them. Nothing of ours is half changed by then.
    let encoded = catch_unwind(AssertUnwindSafe(|| encode_checked(value)));
    let encoded = encoded.unwrap_or_else(|panic| Err(panicked(panic.as_ref()).into()));
    encoded.map_err(|cause| {
        let place = catch_unwind(AssertUnwindSafe(|| walk::unwritable(value)));
        let place = place.ok().flatten().unwrap_or_default();
        refused::<V>("cannot be written as JSON", &place, cause)
    })
}

fn encode_checked<V: Serialize>(value: &V) -> Result<Payload, Cause> {
    let mut text = ROOM.take();
    text.clear();
    let mut json = serde_json::Serializer::new(&mut text);
    let written = value.serialize(Guard::new(&mut json));
    // Without the room to grow, for as long as the payload is held.
    let payload = written.map(|()| Payload::json(Bytes::copy_from_slice(&text)));
    if text.capacity() <= KEPT {
        ROOM.set(text);
    }
    Ok(payload?)
}

/// The value that this payload holds.
///
/// # Errors
///
/// `Corrupt`, naming the type and the place, if the payload is not the JSON text
/// of such a value, or if the value's `Deserialize` panics.
pub(crate) fn decode<V: DeserializeOwned>(payload: &Payload) -> Result<V> {
    read(payload).map_err(|not_read| not_read.corrupt::<V>())
}

/// The value that this payload holds.
///
/// # Errors
///
/// Where and why it cannot be read.
pub(crate) fn read<V: DeserializeOwned>(payload: &Payload) -> Result<V, NotRead> {
    match payload.encoding {
        // A panic in a user's `Deserialize` must not end the task that reads.
        Encoding::Json => match catch_unwind(|| serde_json::from_slice(&payload.bytes)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(cause)) => Err(NotRead {
                place: unreadable_place::<V>(&payload.bytes).unwrap_or_default(),
                cause: cause.into(),
            }),
            Err(panic) => Err(NotRead {
                place: Place::default(),
                cause: panicked(panic.as_ref()).into(),
            }),
        },
    }
}

/// Where reading fails; found by reading again, because it is seldom asked.
fn unreadable_place<V: DeserializeOwned>(text: &[u8]) -> Option<Place> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let failed = AssertUnwindSafe(|| {
        let read: Result<V, _> = serde_path_to_error::deserialize(&mut json);
        read.err()
    });
    let failed = catch_unwind(failed).ok()??;
    Some(Place::of(failed.path()))
}

/// Where and why a text cannot be read.
pub(crate) struct NotRead {
    place: Place,
    cause: Cause,
}

impl NotRead {
    /// What this is of a stored value.
    fn corrupt<V>(self) -> Error {
        let wanted = std::any::type_name::<V>();
        let message = format!(
            "the stored value cannot be read as `{wanted}`{}",
            at(&self.place)
        );
        Error::new(ErrorKind::Corrupt, message).with_source(self.cause)
    }

    /// Looks for the place in the value itself, which may tell it better than the
    /// text.
    pub(crate) fn look_in<V: Serialize>(&mut self, value: &V) {
        let said = self.cause.to_string();
        let suspect = AssertUnwindSafe(|| walk::suspect(value, &said, &self.place));
        if let Ok(Some(place)) = catch_unwind(suspect) {
            self.place = place;
        }
    }

    /// What this is of a value that was about to be stored.
    pub(crate) fn refusal<V>(self) -> Error {
        let problem = "cannot be read back from its own JSON text";
        refused::<V>(problem, &self.place, self.cause)
    }
}

fn refused<V>(problem: &str, place: &Place, cause: Cause) -> Error {
    let message = format!(
        "a value of the type `{}` {problem}{}, so it is not saved; write another one to the key, \
         or remove it",
        std::any::type_name::<V>(),
        at(place)
    );
    Error::new(ErrorKind::Refused, message).with_source(cause)
}

fn at(place: &Place) -> String {
    if place.is_whole() {
        return String::new();
    }
    format!(" (at `{place}`)")
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
