//! Walks through a value once more, to find the place of a fault in it. Faults
//! are seldom, and to keep track of places takes time that saving does not have.

use std::{cell::RefCell, fmt, io, mem};

use serde::ser::{Error, Serialize};

use super::{
    guard::{Guard, Step, Watch},
    place::Place,
};

/// Where the value cannot be written.
pub(super) fn unwritable<V: Serialize>(value: &V) -> Option<Place> {
    end_of_walk(value, None)
}

/// The place of a fault that reading could not name any closer than this.
///
/// Some types are read in two steps: enums with a tag, untagged enums and
/// flattened fields are gathered without knowing their types, and then taken
/// apart. The second step knows no places. It fails where the JSON text does not
/// tell the type: at keys that are not strings, and at integers of 128 bits. The
/// first of these that fits what that step said is the place.
pub(super) fn suspect<V: Serialize>(value: &V, said: &str, within: &Place) -> Option<Place> {
    end_of_walk(value, Some(Suspicion { said, within }))
}

fn end_of_walk<V: Serialize>(value: &V, suspicion: Option<Suspicion<'_>>) -> Option<Place> {
    let walk = RefCell::new(Walk {
        place: Place::default(),
        key: None,
        suspicion,
    });
    let tracker = Tracker {
        walk: &walk,
        is_key: false,
    };
    let mut out = serde_json::Serializer::new(io::sink());
    let ended = value.serialize(Guard::watched(&mut out, tracker)).is_err();
    ended.then(|| mem::take(&mut walk.borrow_mut().place))
}

struct Suspicion<'a> {
    /// What the second step said.
    said: &'a str,
    /// The place where it began.
    within: &'a Place,
}

impl Suspicion<'_> {
    fn is_at(&self, place: &Place, clue: &str) -> bool {
        // An untagged enum that fits no variant does not say what it found.
        let fits = self.said.contains(clue) || self.said.contains("any variant of untagged enum");
        fits && place.is_within(self.within)
    }
}

struct Walk<'a> {
    place: Place,
    key: Option<Key>,
    suspicion: Option<Suspicion<'a>>,
}

/// The key that was written last.
struct Key {
    text: String,
    /// Whether it is a text in the value, too.
    is_text: bool,
}

impl Walk<'_> {
    fn check<E: Error>(&self, clue: &str) -> Result<(), E> {
        match &self.suspicion {
            Some(suspicion) if suspicion.is_at(&self.place, clue) => Err(E::custom("here")),
            _ => Ok(()),
        }
    }

    fn enter_entry<E: Error>(&mut self) -> Result<(), E> {
        let Some(Key { text, is_text }) = self.key.take() else {
            self.place.enter_named("?");
            return Ok(());
        };
        self.place.enter_named(&text);
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
            Step::Name(name) => walk.place.enter_named(name),
            Step::Item(number) => walk.place.enter_item(number),
            Step::Entry => walk.enter_entry()?,
        }
        Ok(())
    }

    fn leave(self) {
        self.walk.borrow_mut().place.leave();
    }
}
