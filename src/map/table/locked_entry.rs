//! All changes of one entry, under its shard's lock.

use std::{sync::Arc, time::Duration};

use super::{
    entry::Slot,
    save_state::{Event, Mark, SaveState, StoredVersion},
    shards::{EntryMut, Shard},
};
use crate::{
    map::{
        api::entry::occupied::Occupied,
        core::Core,
        lifetime::Lifetime,
        write_behind::{requests::Ticket, waiters::Awaited},
    },
    record::Record,
};

/// One key of a map, with its shard locked for writing.
pub(crate) struct LockedEntry<'a, V, L: Lifetime<V>> {
    core: &'a Core<V, L>,
    shard: Shard<'a, V, L::Lease>,
    hash: u64,
    key: &'a str,
    /// Values found to be expired; their listener is called once no lock is held.
    expired: Vec<V>,
    is_changed: bool,
}

impl<V, L: Lifetime<V>> Drop for LockedEntry<'_, V, L> {
    /// Also runs if the closure of an update panics: the entry stays as the closure
    /// left it.
    #[inline]
    fn drop(&mut self) {
        // Without an observer there is no second lookup.
        if self.is_changed && self.core.is_observed() {
            self.report();
        }
    }
}

impl<V, L: Lifetime<V>> LockedEntry<'_, V, L> {
    #[cold]
    fn report(&self) {
        match self.shard.find(self.hash, self.key) {
            Some(entry) => self.core.observe(entry.key, entry.slot.value()),
            None => self.core.observe(&self.key.into(), None),
        }
    }
}

impl<'a, V, L: Lifetime<V>> LockedEntry<'a, V, L> {
    pub(crate) fn new(
        core: &'a Core<V, L>,
        shard: Shard<'a, V, L::Lease>,
        hash: u64,
        key: &'a str,
    ) -> Self {
        Self {
            core,
            shard,
            hash,
            key,
            expired: Vec::new(),
            is_changed: false,
        }
    }

    pub(crate) fn into_expired(mut self) -> Vec<V> {
        std::mem::take(&mut self.expired)
    }

    pub(crate) fn key(&self) -> &'a str {
        self.key
    }

    pub(crate) fn value(&self) -> Option<&V> {
        let entry = self.shard.find(self.hash, self.key)?;
        entry.slot.live(&self.core.lifetime).map(|(value, _)| value)
    }

    /// Puts a value as a fresh entry; returns the previous one.
    pub(crate) fn put(&mut self, value: V, ttl: Option<Duration>) -> Option<V> {
        let lifetime = &self.core.lifetime;
        self.put_leased(value, |key, previous| lifetime.begin(key, ttl, previous))
    }

    /// Like [`put`](Self::put), with the expiry of this record.
    pub(crate) fn put_stored(&mut self, value: V, record: &Record) -> Option<V> {
        let lifetime = &self.core.lifetime;
        self.put_leased(value, |key, previous| {
            if let Some(previous) = previous {
                lifetime.ended(key, previous);
            }
            lifetime.adopt(record)
        })
    }

    fn put_leased(
        &mut self,
        value: V,
        begin: impl FnOnce(&Arc<str>, Option<&L::Lease>) -> L::Lease,
    ) -> Option<V> {
        let (core, hash) = (self.core, self.hash);
        self.is_changed = true;
        let Some(EntryMut { key, slot }) = self.shard.find_mut(hash, self.key) else {
            let key: Arc<str> = self.key.into();
            let lease = begin(&key, None);
            let mut state = SaveState::new(StoredVersion::ABSENT);
            core.apply(&key, &mut state, Event::Written);
            let slot = Slot::Live {
                value,
                lease,
                state,
            };
            self.shard.insert(hash, key, slot);
            return None;
        };
        let lease = begin(key, slot.lease());
        let had_expired = slot.has_expired();
        core.apply(key, slot.state_mut(), Event::Written);
        let previous = slot.put(value, lease);
        let lives = |(_, lease): &(V, _)| core.lifetime.is_live(lease);
        let expired = previous.as_ref().is_some_and(|previous| !lives(previous));
        if had_expired || expired {
            slot.state_mut().is_over_expired = true;
        }
        if previous.is_none() {
            self.shard.count_gone(-1);
        }
        self.unless(expired, previous)
    }

    pub(crate) fn put_if_absent(&mut self, value: V) -> Result<(), Occupied<V>> {
        if self.value().is_some() {
            let key = self.key.into();
            return Err(Occupied { key, value });
        }
        self.put(value, None);
        Ok(())
    }

    /// Replaces a live value; returns the previous one, even if it expired since it
    /// was checked.
    pub(crate) fn replace(&mut self, value: V) -> Option<V> {
        self.value()?;
        let previous = self.put(value, None);
        previous.or_else(|| self.expired.pop())
    }

    pub(crate) fn get_or_put(&mut self, make: impl FnOnce() -> V) -> V
    where
        V: Clone,
    {
        if let Some(value) = self.value() {
            return value.clone();
        }
        let value = make();
        self.put(value.clone(), None);
        value
    }

    /// Changes the value in place; its time to live restarts.
    pub(crate) fn update<R>(&mut self, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.update_leased(change, L::renew)
    }

    /// Changes the value in place; its expiry stays.
    pub(crate) fn update_keeping_expiry<R>(
        &mut self,
        change: impl FnOnce(&mut V) -> R,
    ) -> Option<R> {
        self.update_leased(change, |lifetime, _, lease| lifetime.keep(lease))
    }

    fn update_leased<R>(
        &mut self,
        change: impl FnOnce(&mut V) -> R,
        lease_again: impl FnOnce(&L, &Arc<str>, &mut L::Lease),
    ) -> Option<R> {
        let core = self.core;
        let EntryMut { key, slot } = self.shard.find_mut(self.hash, self.key)?;
        slot.live(&core.lifetime)?;
        // Applied before the closure runs: if the closure panics halfway, the entry
        // is saved as the closure left it, and memory and store still agree.
        core.apply(key, slot.state_mut(), Event::Written);
        self.is_changed = true;
        let Slot::Live { value, lease, .. } = slot else {
            return None;
        };
        lease_again(&core.lifetime, key, lease);
        Some(change(value))
    }

    /// The value, to be changed in place; if there is none, the value that `make`
    /// returns is put first.
    pub(crate) fn get_or_put_mut(&mut self, make: impl FnOnce() -> V) -> &mut V {
        // Marked as changed before the caller changes it, as in `update`.
        if self.update(|_| ()).is_none() {
            self.put(make(), None);
        }
        match self.shard.find_mut(self.hash, self.key) {
            // Used even if it has expired by now: it was live at the call.
            Some(EntryMut {
                slot: Slot::Live { value, .. },
                ..
            }) => value,
            _ => unreachable!("under the lock, a value stays where it was put"),
        }
    }

    /// Removes the value.
    pub(crate) fn remove(&mut self) -> Option<V> {
        let removed = self.take_away(false);
        self.unexpired(removed)
    }

    /// Removes the value if it has expired.
    pub(crate) fn expire(&mut self) -> Option<V> {
        let core = self.core;
        let EntryMut { key, slot } = self.shard.find_mut(self.hash, self.key)?;
        if slot.live(&core.lifetime).is_none() {
            return self.take_away(true).map(|(value, _)| value);
        }
        if let Slot::Live { lease, .. } = slot {
            core.lifetime.reschedule(key, lease);
        }
        None
    }

    fn take_away(&mut self, expired: bool) -> Option<(V, L::Lease)> {
        let EntryMut { key, slot } = self.shard.find_mut(self.hash, self.key)?;
        let Some(lease) = slot.lease() else {
            // There is no value, but a commit in flight or an abandoned one may
            // create an entry: the removal is committed after it.
            let state = slot.state_mut();
            let is_compared = state.is_automatic && state.stored == StoredVersion::UNKNOWN;
            if !expired && (state.mark.is_proposed() || is_compared) {
                self.core.apply(key, state, Event::Written);
            }
            return None;
        };
        self.core.lifetime.ended(key, lease);
        self.is_changed = true;
        let state = slot.state_mut();
        if state.stored == StoredVersion::ABSENT && !state.mark.is_in_flight() {
            // The store never had the entry, so no deletion is needed.
            self.core.apply(key, state, Event::Replaced(state.stored));
            let (_, slot) = self.shard.remove(self.hash, self.key)?;
            return slot.into_value();
        }
        let event = if expired {
            Event::Automatic
        } else {
            Event::Written
        };
        self.core.apply(key, state, event);
        let previous = slot.bury();
        self.shard.count_gone(1);
        previous
    }

    /// Queues a new expiry for the store, and nothing else.
    pub(crate) fn touch(&mut self) {
        let core = self.core;
        let Some(EntryMut { key, slot }) = self.shard.find_mut(self.hash, self.key) else {
            return;
        };
        if slot.live(&core.lifetime).is_none() {
            return;
        }
        let Slot::Live { lease, state, .. } = slot else {
            return;
        };
        match state.mark {
            // Commits the expiry without the value: the store has the value.
            Mark::Clean | Mark::Proposed => core.lifetime.touch(lease),
            // The commit in flight has the old expiry, and may still fail to store
            // its value: the next commit carries everything that this one does.
            Mark::Saving => {}
            // The pending change carries the new expiry anyway.
            Mark::Queued | Mark::SavingQueued | Mark::ProposedQueued | Mark::Refused => return,
        }
        core.apply(key, state, Event::Touched);
    }

    /// A ticket that resolves when the current state is committed.
    ///
    /// Created in the critical section of the write itself, so that the flusher
    /// cannot take the write before it sees the waiting caller.
    pub(crate) fn wait(&self) -> Ticket {
        let what = match self.shard.find(self.hash, self.key) {
            Some(entry) if entry.slot.is_clean() => return Ticket::done(),
            Some(entry) => Awaited::Key(entry.key.clone()),
            // There is no entry in memory, but the store may have one until the
            // clear is committed.
            None if self.core.must_clear() => Awaited::Clear,
            None => return Ticket::done(),
        };
        self.core.await_save(what)
    }

    fn unexpired(&mut self, previous: Option<(V, L::Lease)>) -> Option<V> {
        let expired = !self.core.lifetime.is_live(&previous.as_ref()?.1);
        self.unless(expired, previous)
    }

    fn unless(&mut self, expired: bool, previous: Option<(V, L::Lease)>) -> Option<V> {
        let (value, _) = previous?;
        if !expired {
            return Some(value);
        }
        self.expired.push(value);
        None
    }
}
