//! Applies a commit to memory after the store has applied it, while the flusher
//! is paused.
//!
//! # Why memory and store agree
//!
//! No other commit of the map is in flight, and pending changes of these keys
//! were committed before. Each entry is
//! [marked](super::save_state::Mark::Proposed) from before the first attempt,
//! and its mark tracks later changes:
//!
//! - The mark is that of a *written* entry: the write is later than the commit.
//!   It stays in memory, and the next commit stores it.
//! - There is no mark: the map was cleared since, and the clear is the later
//!   write of all keys.
//! - The mark is unchanged: the entry takes over the committed value.
//!
//! An automatic change (an expiry, a read that moved it, a migration) is not a
//! write and gives way to the commit. But a value that was written since and has
//! expired was a write.

use std::{collections::BTreeMap, mem, sync::Arc};

use serde::de::DeserializeOwned;

use super::{
    discarded::{Discarded, RemovedEntry},
    reentrancy::ReentrancyGuard,
    shards::{EntryMut, Several, Shard},
};
use super::{
    entry::Slot,
    save_state::{Event, Mark, StoredVersion},
};
use crate::{
    batch::Op,
    error::Error,
    map::{
        core::Core,
        lifetime::Lifetime,
        write_behind::proposal::{share::Landing, staged::StagedChange},
    },
    record::{Record, Revision},
};

/// A share whose entries are locked.
pub(crate) struct LockedShare<'a, V, L: Lifetime<V>> {
    core: &'a Core<V, L>,
    shards: Several<'a, V, L::Lease>,
    steps: &'a mut BTreeMap<Arc<str>, StagedChange<V>>,
    /// Replaced values; dropping them runs foreign code, so not under the locks.
    replaced: &'a mut Vec<Discarded<V, L>>,
}

impl<'a, V, L: Lifetime<V>> LockedShare<'a, V, L> {
    pub(crate) fn new(
        core: &'a Core<V, L>,
        steps: &'a mut BTreeMap<Arc<str>, StagedChange<V>>,
        replaced: &'a mut Vec<Discarded<V, L>>,
    ) -> Self {
        let hashes = steps.keys().map(|key| core.shards.hash(key));
        Self {
            shards: core.shards.write_several(hashes),
            core,
            steps,
            replaced,
        }
    }
}

impl<V: DeserializeOwned, L: Lifetime<V>> Landing for LockedShare<'_, V, L> {
    fn land(&mut self, revision: Option<Revision>) {
        for (key, step) in mem::take(self.steps) {
            let hash = self.core.shards.hash(&key);
            let Some(shard) = self.shards.get_mut(&self.core.shards.number(hash)) else {
                continue;
            };
            self.replaced
                .extend(self.core.land(shard, hash, &key, step, revision));
        }
    }
}

impl<V: DeserializeOwned, L: Lifetime<V>> Core<V, L> {
    /// Applies to memory a change that the store has applied. Returns the value
    /// that memory no longer needs.
    fn land(
        &self,
        shard: &mut Shard<'_, V, L::Lease>,
        hash: u64,
        key: &Arc<str>,
        step: StagedChange<V>,
        revision: Option<Revision>,
    ) -> Option<Discarded<V, L>> {
        let stored = match step.op {
            Some(Op::Delete) => StoredVersion::ABSENT,
            _ => StoredVersion::at(revision),
        };
        let entry = shard.find_mut(hash, key);
        let entry = entry.filter(|entry| entry.slot.state().mark.is_in_flight());
        let Some(EntryMut { key: own, slot }) = entry else {
            return step.value.map(Discarded::Value);
        };
        let is_left = matches!(step.op, Some(Op::Touch { .. })) && !slot.is_empty_in_flight();
        if is_left || !slot.state().mark.is_proposed() {
            slot.learn(stored);
            self.apply(own, slot.state_mut(), Event::Withdrawn);
            return step.value.map(Discarded::Value);
        }
        self.apply(own, slot.state_mut(), Event::Committed(stored));
        let was_gone = slot.is_gone();
        let removed = match step.value {
            Some(value) => {
                let previous = slot.lease();
                let lease = self.lifetime.begin_at(own, step.ttl, previous, step.at);
                let removed = slot.put(value, lease);
                self.observe(own, slot.value());
                removed.map(|(value, lease)| RemovedEntry::new(key, value, lease))
            }
            None => self.remove_entry(shard, hash, key),
        };
        shard.count_gone(-isize::from(was_gone));
        removed.map(Discarded::Entry)
    }
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Whether the entry has a change by a user that is not in the store.
    pub(crate) fn has_user_change(&self, slot: &Slot<V, L::Lease>) -> bool {
        let touched = slot.lease().is_some_and(|l| self.lifetime.only_touched(l));
        let is_automatic = touched || slot.state().is_automatic;
        match slot.state().mark {
            Mark::Clean | Mark::Proposed | Mark::ProposedQueued => false,
            Mark::Queued => !is_automatic,
            Mark::Saving | Mark::SavingQueued | Mark::Refused => true,
        }
    }

    /// The keys among these whose entries have changes by a user.
    pub(crate) fn with_user_changes(&self, keys: &[Arc<str>]) -> Vec<Arc<str>> {
        let has_user_change = |key: &&Arc<str>| {
            let changed = self.peek(key, |slot| self.has_user_change(slot));
            changed.unwrap_or(false)
        };
        keys.iter().filter(has_user_change).cloned().collect()
    }

    /// The reason why the store refused the change in memory of this key.
    pub(crate) fn refusal(&self, key: &Arc<str>) -> Option<Error> {
        let refused = |slot: &Slot<V, L::Lease>| slot.state().mark == Mark::Refused;
        self.peek(key, |slot| refused(slot).then(|| self.refusal_of(key)))?
    }

    /// Looks at a slot in any state; does not count as a read.
    pub(crate) fn peek<R>(
        &self,
        key: &str,
        look: impl FnOnce(&Slot<V, L::Lease>) -> R,
    ) -> Option<R> {
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(key);
        let shard = self.shards.read(hash);
        Some(look(shard.find(hash, key)?.slot))
    }
}

impl<V: DeserializeOwned, L: Lifetime<V>> Core<V, L> {
    /// Applies to memory the record found in the store (or its absence), unless the
    /// key was written meanwhile. That write was made without knowing the record,
    /// so memory only notes that the store may have an entry to remove.
    pub(crate) fn learn(&self, key: &Arc<str>, found: Option<Record>) {
        let is_there = found.is_some();
        let stored = found.and_then(|record| self.decode_found(record));
        let replaced = {
            let _guard = ReentrancyGuard::enter();
            let hash = self.shards.hash(key);
            let mut shard = self.shards.write(hash);
            if let Some(EntryMut { slot, .. }) = shard.find_mut(hash, key).filter(|_| is_there) {
                slot.state_mut().assume_stored();
            }
            self.put_found(&mut shard, hash, key, stored)
        };
        self.discard(replaced);
    }

    fn decode_found(&self, record: Record) -> Option<(Record, V)> {
        match self.decode(record.value.as_ref()?) {
            Ok(decoded) => Some((record, decoded.value)),
            Err(_) if self.is_listed(&record) => None,
            Err(error) => {
                self.list_unreadable(record, error.on_map(&self.name));
                None
            }
        }
    }

    fn put_found(
        &self,
        shard: &mut Shard<'_, V, L::Lease>,
        hash: u64,
        key: &Arc<str>,
        stored: Option<(Record, V)>,
    ) -> Option<Discarded<V, L>> {
        let found = stored.as_ref().map(|(record, _)| record.revision);
        let found = found.map_or(StoredVersion::ABSENT, |at| StoredVersion::at(Some(at)));
        let entry = shard.find_mut(hash, key);
        let entry = entry.filter(|entry| entry.slot.state().mark.is_proposed());
        let Some(EntryMut { key: own, slot }) = entry else {
            return stored.map(|(_, value)| Discarded::Value(value));
        };
        // An entry that has expired since is not brought back.
        let is_untouched = slot.state().mark == Mark::Proposed;
        if !is_untouched && found.revision().is_some() && slot.state().stored == found {
            return stored.map(|(_, value)| Discarded::Value(value));
        }
        self.apply(own, slot.state_mut(), Event::Replaced(found));
        let was_gone = slot.is_gone();
        let removed = match stored {
            Some((record, value)) => self.put_stored(slot, &record, value),
            None => self.remove_entry(shard, hash, key),
        };
        shard.count_gone(-isize::from(was_gone));
        removed.map(Discarded::Entry)
    }
}
