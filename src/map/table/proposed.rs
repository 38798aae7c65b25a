//! Entries of a proposal: a commit that is applied to the store first and to
//! memory afterwards. They are marked from before its first attempt until its
//! outcome is known.

use std::sync::Arc;

use super::{
    entry::Slot,
    save_state::{Event, Mark, SaveState, StoredVersion},
};
use super::{reentrancy::ReentrancyGuard, shards::EntryMut};
use crate::map::{core::Core, lifetime::Lifetime};

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Marks an entry as part of a commit that is about to be sent; a missing entry
    /// gets a tombstone. The flusher commits nothing meanwhile.
    pub(crate) fn mark_proposed(&self, key: &Arc<str>) {
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        // A pending clear is a later write of every key, and an entry that exists
        // now was written after it. A clear locks all shards, so none can begin
        // while this lock is held.
        if self.must_clear() {
            return;
        }
        let Some(EntryMut { key: own, slot }) = shard.find_mut(hash, key) else {
            let mut state = SaveState::new(StoredVersion::ABSENT);
            state.apply(Event::Proposed {
                behind_write: false,
            });
            shard.insert(hash, key.clone(), Slot::Gone { state });
            shard.count_gone(1);
            return;
        };
        // Pending changes of these keys were committed to make way, so a user's
        // change that is pending now was made later.
        let behind_write = self.has_user_change(slot);
        self.apply(own, slot.state_mut(), Event::Proposed { behind_write });
    }

    /// Unmarks an entry whose commit was not applied and will not be. The entry
    /// keeps its value, or one written meanwhile. If `uncertain`, it will never be
    /// known whether the commit was applied.
    pub(crate) fn withdraw(&self, key: &Arc<str>, uncertain: bool) {
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        let Some(EntryMut { key: own, slot }) = shard.find_mut(hash, key) else {
            return;
        };
        // An entry that is not in flight was written after a clear.
        if !slot.state().mark.is_in_flight() {
            return;
        }
        if uncertain && self.provider.capabilities().conditions {
            return self.compare_with_store(own, slot.state_mut());
        }
        let (is_gone, state) = (slot.is_gone(), slot.state_mut());
        if is_gone && state.stored == StoredVersion::ABSENT {
            // The store never had the entry, so no deletion is needed.
            self.apply(own, state, Event::Replaced(state.stored));
            shard.remove(hash, key);
            shard.count_gone(-1);
        } else {
            self.apply(own, state, Event::Withdrawn);
        }
    }

    /// Makes the next commit compare the entry with the store: the stored entry
    /// replaces an automatic change, unless the store holds the known version.
    fn compare_with_store(&self, key: &Arc<str>, state: &mut SaveState) {
        state.assume_stored();
        let is_untouched = state.mark == Mark::Proposed;
        self.apply(key, state, Event::Withdrawn);
        if is_untouched {
            self.apply(key, state, Event::Automatic);
        }
    }
}
