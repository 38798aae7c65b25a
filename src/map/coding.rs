//! Encodes and decodes a map's values, including migrations to the current schema
//! version.

use serde::{Serialize, de::DeserializeOwned};

use super::{core::Core, lifetime::Lifetime};
use crate::{
    batch::{Change, Op},
    codec,
    codec::NotRead,
    error::Result,
    record::Payload,
};

/// A decoded value.
pub(super) struct Decoded<V> {
    pub(super) value: V,
    /// Whether it was stored with an older schema version and has been migrated.
    pub(super) is_upgraded: bool,
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Encodes a value for the store.
    ///
    /// # Errors
    ///
    /// `Refused` if it cannot be expressed as JSON.
    pub(super) fn encode(&self, value: &V) -> Result<Payload>
    where
        V: Serialize,
    {
        let payload = codec::encode(value)?;
        Ok(payload.with_schema(self.options.migrations.current))
    }

    /// Decodes an encoded value again, if it is due for verification. No lock is
    /// held: the value's own code runs and may be slow.
    ///
    /// # Errors
    ///
    /// The place and the reason, if the value does not decode.
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

    /// Returns the change if its value decodes again.
    ///
    /// # Errors
    ///
    /// `Refused` if it does not.
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
        // The value in memory may have changed since, but it has the type and most
        // likely the place that failed.
        self.peek(&change.key, |slot| {
            if let Some(value) = slot.value() {
                not_read.look_in(value);
            }
        });
        Err(not_read.refusal::<V>())
    }

    /// Decodes a payload of any known schema version.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it does not decode, or if a migration step failed; `Invalid` if
    /// the program does not know its schema version.
    pub(super) fn decode(&self, payload: &Payload) -> Result<Decoded<V>>
    where
        V: DeserializeOwned,
    {
        let upgraded = self.options.migrations.upgraded(payload)?;
        // Decode from text, not from the tree that the steps work on: a value must
        // decode to the same result before and after it is rewritten.
        let value = codec::decode(upgraded.as_ref().unwrap_or(payload))?;
        Ok(Decoded {
            value,
            is_upgraded: upgraded.is_some(),
        })
    }
}
