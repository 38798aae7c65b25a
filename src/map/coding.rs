//! A map's values to and from what is stored, in the shape that it writes.

use serde::{Serialize, de::DeserializeOwned};

use super::{core::Core, lifetime::Lifetime};
use crate::{codec, error::Result, record::Payload};

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
    /// `Refused` if it cannot be written as JSON, or not be read again.
    pub(super) fn encode(&self, value: &V) -> Result<Payload>
    where
        V: Serialize + DeserializeOwned,
    {
        let payload = codec::encode(value)?;
        codec::check_depth::<V>(&payload)?;
        Ok(payload.with_schema(self.options.shapes.current))
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
