//! Finds the part of a value that cannot be written or read again, by serializing the
//! value once more. Faults are rare, and tracking paths would slow down each save.

use std::{cell::RefCell, fmt, io, mem};

use serde::ser::{Error, Serialize};

use super::{
    strict::{Step, Strict, Watch},
    value_path::ValuePath,
};

/// The part that cannot be written; `None` if all of it can.
pub(crate) fn unwritable<V: Serialize>(value: &V) -> Option<ValuePath> {
    end_of_walk(value, None)
}

/// The part that cannot be read again, if decoding could only locate it within `within`.
///
/// serde reads some types in two steps: it buffers tagged and untagged enums and
/// flattened fields without knowing their types, and then takes them apart. The second
/// step tracks no paths. It fails where the JSON text does not determine the type: at
/// keys that are not strings, and at integers of 128 bits. The result is the first of
/// these that fits the message of the second step.
pub(crate) fn suspect<V: Serialize>(
    value: &V,
    said: &str,
    within: &ValuePath,
) -> Option<ValuePath> {
    end_of_walk(value, Some(Suspicion { said, within }))
}

fn end_of_walk<V: Serialize>(value: &V, suspicion: Option<Suspicion<'_>>) -> Option<ValuePath> {
    let walk = RefCell::new(Walk {
        path: ValuePath::default(),
        key: None,
        suspicion,
    });
    let tracker = Tracker {
        walk: &walk,
        is_key: false,
    };
    let mut out = serde_json::Serializer::new(io::sink());
    let ended = value.serialize(Strict::watched(&mut out, tracker)).is_err();
    ended.then(|| mem::take(&mut walk.borrow_mut().path))
}

struct Suspicion<'a> {
    /// The message of the second step.
    said: &'a str,
    /// The part that the second step was reading.
    within: &'a ValuePath,
}

impl Suspicion<'_> {
    fn is_at(&self, path: &ValuePath, clue: &str) -> bool {
        // The message for an untagged enum without a matching variant does not contain the clue.
        let fits = self.said.contains(clue) || self.said.contains("any variant of untagged enum");
        fits && path.is_within(self.within)
    }
}

struct Walk<'a> {
    path: ValuePath,
    key: Option<Key>,
    suspicion: Option<Suspicion<'a>>,
}

/// The key that was written last.
struct Key {
    text: String,
    /// Whether it is a string in the value too, not only in the text.
    is_text: bool,
}

impl Walk<'_> {
    fn check<E: Error>(&self, clue: &str) -> Result<(), E> {
        match &self.suspicion {
            Some(suspicion) if suspicion.is_at(&self.path, clue) => Err(E::custom("here")),
            _ => Ok(()),
        }
    }

    fn enter_entry<E: Error>(&mut self) -> Result<(), E> {
        let Some(Key { text, is_text }) = self.key.take() else {
            self.path.enter_named("?");
            return Ok(());
        };
        self.path.enter_named(&text);
        if is_text {
            return Ok(());
        }
        self.check(&format!("string {text:?}"))
    }
}

#[derive(Clone, Copy)]
struct Tracker<'a, 'b> {
    walk: &'a RefCell<Walk<'b>>,
    is_key: bool,
}

impl Watch for Tracker<'_, '_> {
    fn of_key(self) -> Self {
        let is_key = true;
        Self { is_key, ..self }
    }

    fn scalar<T: fmt::Display + ?Sized>(self, what: &T, is_text: bool) {
        if self.is_key {
            let text = what.to_string();
            self.walk.borrow_mut().key = Some(Key { text, is_text });
        }
    }

    fn wide<E: Error>(self) -> Result<(), E> {
        if self.is_key {
            return Ok(());
        }
        self.walk.borrow().check("128")
    }

    fn enter<E: Error>(self, step: Step) -> Result<(), E> {
        let mut walk = self.walk.borrow_mut();
        match step {
            Step::Name(name) => walk.path.enter_named(name),
            Step::Item(number) => walk.path.enter_item(number),
            Step::Entry => walk.enter_entry()?,
        }
        Ok(())
    }

    fn leave(self) {
        self.walk.borrow_mut().path.leave();
    }
}
