//! A map's values to and from what is stored, in the shape that it writes.

use serde::{Serialize, de::DeserializeOwned};

use super::{core::Core, lifetime::Lifetime};
use crate::{
    batch::{Change, Op},
    codec,
    codec::NotRead,
    error::Result,
    record::Payload,
};

/// A value as it was read.
pub(super) struct Decoded<V> {
    pub(super) value: V,
    /// It was stored in an older shape.
    pub(super) is_upgraded: bool,
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// What is stored of a value.
    ///
    /// # Errors
    ///
    /// `Refused` if it cannot be written as JSON.
    pub(super) fn encode(&self, value: &V) -> Result<Payload>
    where
        V: Serialize,
    {
        let payload = codec::encode(value)?;
        Ok(payload.with_schema(self.options.shapes.current))
    }

    /// Reads back what was encoded, if its turn has come. No lock is held: the
    /// value's own code runs, and may take its time.
    ///
    /// # Errors
    ///
    /// Where and why it could not be read again.
    pub(super) fn verify(&self, payload: &Payload) -> Result<(), NotRead>
    where
        V: DeserializeOwned,
    {
        if self.verifier.is_due() {
            let copy = codec::read::<V>(payload)?;
            self.drop_value(copy);
        }
        Ok(())
    }

    /// The change, if its value can be read again.
    ///
    /// # Errors
    ///
    /// `Refused` if it cannot.
    pub(super) fn verified(&self, change: Change) -> Result<Change>
    where
        V: Serialize + DeserializeOwned,
    {
        let Op::Put { payload, .. } = &change.op else {
            return Ok(change);
        };
        let Err(mut not_read) = self.verify(payload) else {
            return Ok(change);
        };
        // What is there by now is of the same type, and most likely the same.
        self.peek(&change.key, |slot| {
            if let Some(value) = slot.value() {
                not_read.look_in(value);
            }
        });
        Err(not_read.refusal::<V>())
    }

    /// The value that this payload holds, whatever shape it was written in.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it does not decode, or a step on the way to its shape of
    /// today failed; `Invalid` if the program does not know its shape.
    pub(super) fn decode(&self, payload: &Payload) -> Result<Decoded<V>>
    where
        V: DeserializeOwned,
    {
        let upgraded = self.options.shapes.upgraded(payload)?;
        // From text, and not from the tree that the steps work on: a value must
        // read the same before and after it was rewritten.
        let value = codec::decode(upgraded.as_ref().unwrap_or(payload))?;
        Ok(Decoded {
            value,
            is_upgraded: upgraded.is_some(),
        })
    }
}
