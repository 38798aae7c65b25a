//! Merges the map's value with the stored one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

use super::resolving::{FAILED, Fate, Resolved, StoreSide};
use crate::{
    codec,
    error::{Error, ErrorKind, Result},
    event::Resolution,
    map::{
        core::Core, lifetime::Lifetime, table::entry::Slot, write_behind::conflicts::OnConflict,
    },
};

impl<V: Serialize + DeserializeOwned, L: Lifetime<V>> Core<V, L> {
    /// Replaces the value in memory by the closure's merge of both values.
    pub(super) fn merge(
        &self,
        key: &Arc<str>,
        slot: &mut Slot<V, L::Lease>,
        found: &mut StoreSide<V>,
    ) -> Resolved<V, L> {
        let known = found.version();
        let Slot::Live { value, lease, .. } = slot else {
            self.apply(key, slot.state_mut(), FAILED);
            return Resolved::new(Fate::Again);
        };
        match self.merged(value, found) {
            Ok(merged) => {
                let unmerged = std::mem::replace(value, merged);
                self.lifetime.renew(key, lease);
                self.observe(key, slot.value());
                slot.learn(known);
                self.apply(key, slot.state_mut(), FAILED);
                let resolved = Resolved::new(Fate::Again).by(Resolution::Merged);
                resolved.instead_of(unmerged)
            }
            Err(error) => {
                let error = error.on_map(&self.name).on_keys([key.clone()]);
                Resolved::new(Fate::Refused(error)).by(Resolution::Refused)
            }
        }
    }

    /// Returns the closure's merge of both values. The closure gets a copy of the
    /// value in memory: if it panics, the original is still there.
    fn merged(&self, mine: &V, found: &mut StoreSide<V>) -> Result<V> {
        let theirs = found
            .value
            .take()
            .unwrap_or_else(|| Err(Error::new(ErrorKind::Corrupt, "no value")));
        let theirs = theirs.map_err(|e| not_merged("the stored value is unreadable", e))?;
        let mine = codec::decode(&codec::encode(mine)?)
            .map_err(|e| not_merged("the value does not decode from its own JSON text", e))?;
        let merged = match &self.conflicts.policy {
            OnConflict::Merge(merge) => catch_unwind(AssertUnwindSafe(|| merge(mine, theirs))),
            OnConflict::MergeWith(merge) => catch_unwind(AssertUnwindSafe(|| merge(mine, theirs))),
            OnConflict::LastWrite | OnConflict::StoreWins => Ok(mine),
        };
        merged.map_err(|panic| not_merged("the closure failed", codec::panicked(panic.as_ref())))
    }
}

fn not_merged(problem: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let message = format!(
        "the value was not merged with the one that another process stored: {problem}; it is in \
         memory only: write to the key again, or call `retry_refused()`"
    );
    Error::new(ErrorKind::Refused, message).with_source(cause)
}
