//! Entries of a commit that memory takes over once it is in the store. They are
//! marked from before its first attempt until its outcome is known.

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
        // A clear takes all shard locks, including this one. It is the later write
        // of every key, and an entry that exists now was written after it.
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
        // A claimed entry was written after pending changes were committed to make
        // way.
        let behind_write = self.has_user_change(slot);
        self.apply(own, slot.state_mut(), Event::Proposed { behind_write });
    }

    /// The commit was not applied and will not be: the entry stays as it was, or as
    /// it was written meanwhile. If `uncertain`, it will never be known whether the
    /// commit was applied.
    pub(crate) fn withdraw(&self, key: &Arc<str>, uncertain: bool) {
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        let Some(EntryMut { key: own, slot }) = shard.find_mut(hash, key) else {
            return;
        };
        // Otherwise the entry was written after a clear.
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

    /// Makes the next commit compare the entry with the store: an automatic change
    /// takes over the stored entry, unless the store holds the known version.
    fn compare_with_store(&self, key: &Arc<str>, state: &mut SaveState) {
        state.assume_stored();
        let is_untouched = state.mark == Mark::Proposed;
        self.apply(key, state, Event::Withdrawn);
        if is_untouched {
            self.apply(key, state, Event::Automatic);
        }
    }
}
