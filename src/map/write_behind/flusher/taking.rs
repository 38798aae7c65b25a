//! Takes dirty entries into a batch: values as they are now, encoded.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    batch::{Change, Otherwise},
    error::Error,
    map::{
        core::Core,
        lifetime::Lifetime,
        table::{
            entry::Slot,
            reentrancy::ReentrancyGuard,
            save_state::{Event, Mark, StoredVersion},
            shards::{EntryMut, EntryRef, Shard},
        },
    },
    record::Cause,
};

/// How many entries the flusher may look at under one lock.
pub(crate) const RUN: usize = 16;

/// What the flusher finds when it looks at an entry.
pub(crate) enum Candidate {
    /// A change, which is part of the commit from now on.
    Change(Change),
    /// It is part of this commit already.
    Already,
    /// Nothing to save: the store has it, or there is nothing.
    Nothing,
    /// It was refused before, and not changed since.
    Refused(Error),
    /// It turned out just now that it cannot be written as JSON, or not be read
    /// again.
    Unwritable(Error),
    /// The map was cleared since the commit was begun.
    Cleared,
}

/// An entry of which the flusher has moved the mark.
pub(crate) enum Reserved {
    /// It is being saved now; what of it, is still to be encoded.
    Saving {
        hash: u64,
        /// Where its key stood in the queue.
        place: u32,
    },
    /// There is nothing to encode.
    Over(Candidate),
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Takes a queued entry into the commit that was begun in this generation.
    pub(crate) fn take(&self, key: &Arc<str>, generation: u64) -> Candidate
    where
        V: Serialize + DeserializeOwned,
    {
        let hash = self.shards.hash(key);
        let mut begun = [Reserved::Over(Candidate::Nothing)];
        let keys = std::slice::from_ref(key);
        self.begin_run(
            self.shards.number(hash),
            &[(hash, 0)],
            keys,
            generation,
            &mut begun,
        );
        let [begun] = begun;
        self.finish_taking(key, begun, generation)
    }

    /// The first step of taking several: moves their marks. Says of each, in
    /// this order, how to [go on](Self::finish_taking).
    pub(crate) fn begin_all(&self, keys: &[Arc<str>], generation: u64) -> Vec<Reserved> {
        let hashed = keys.iter().enumerate();
        let hashed = hashed.map(|(n, key)| (self.shards.hash(key), n));
        let mut begun: Vec<_> = keys
            .iter()
            .map(|_| Reserved::Over(Candidate::Nothing))
            .collect();
        for (shard, group) in self.shards.grouped(hashed) {
            for run in group.chunks(RUN) {
                self.begin_run(shard, run, keys, generation, &mut begun);
            }
        }
        begun
    }

    /// Moves the marks of these keys of one shard, each given by its hash and
    /// its number among all.
    fn begin_run(
        &self,
        shard: usize,
        run: &[(u64, usize)],
        keys: &[Arc<str>],
        generation: u64,
        begun: &mut [Reserved],
    ) {
        let _guard = ReentrancyGuard::enter();
        let mut shard = self.shards.lock(shard);
        let cleared = self.generation.load(Relaxed) != generation;
        for &(hash, n) in run {
            begun[n] = if cleared {
                Reserved::Over(Candidate::Cleared)
            } else {
                self.begin_saving(&mut shard, hash, &keys[n])
            };
        }
        // Counted and unlinked last: these are shared with all threads, and
        // would keep the processor from fetching the next entry meanwhile. It
        // is still the same critical section.
        let places = run.iter().filter_map(|(_, n)| match begun[*n] {
            Reserved::Saving { place, .. } => Some((place, &keys[*n])),
            Reserved::Over(_) => None,
        });
        self.saving
            .fetch_add(self.queue.unlink_all(places), Relaxed);
    }

    fn begin_saving(
        &self,
        shard: &mut Shard<'_, V, L::Lease>,
        hash: u64,
        key: &Arc<str>,
    ) -> Reserved {
        let Some(EntryMut { key: found, slot }) = shard.find_mut(hash, key) else {
            return Reserved::Over(Candidate::Nothing);
        };
        let state = slot.state_mut();
        match state.mark {
            Mark::Clean => Reserved::Over(Candidate::Nothing),
            // Not a second time, although it was changed again: a batch holds a
            // key once. That change stays queued, and whoever waits for it is
            // not among those who were asked about before the key was taken.
            Mark::Saving | Mark::SavingQueued | Mark::Proposed | Mark::ProposedQueued => {
                Reserved::Over(Candidate::Already)
            }
            Mark::Refused => Reserved::Over(Candidate::Refused(self.refusal_of(key))),
            Mark::Queued => {
                // Unlinked and counted by the caller, with all others of the run.
                state.apply(Event::Taken);
                if !Arc::ptr_eq(found, key) {
                    // Removed and inserted since: the queue knows it by this one.
                    self.queue.unlink(state.place, found);
                }
                let place = state.place;
                Reserved::Saving { hash, place }
            }
        }
    }

    /// The second step: the value is encoded under the read lock, so that
    /// readers need not wait for a large one. Whatever was written since the
    /// first step is encoded, and has queued the key again: saved twice, never
    /// lost.
    pub(crate) fn finish_taking(
        &self,
        key: &Arc<str>,
        begun: Reserved,
        generation: u64,
    ) -> Candidate
    where
        V: Serialize + DeserializeOwned,
    {
        let hash = match begun {
            Reserved::Saving { hash, .. } => hash,
            Reserved::Over(taken) => return taken,
        };
        let encoded = {
            let _guard = ReentrancyGuard::enter();
            let shard = self.shards.read(hash);
            match shard.find(hash, key) {
                Some(entry) if self.generation.load(Relaxed) == generation => {
                    self.change_of(&entry)
                }
                _ => return Candidate::Cleared,
            }
        };
        encoded
            .and_then(|change| self.verified(change))
            .map_or_else(
                |error| {
                    let error = error.on_map(&self.name).on_keys([key.clone()]);
                    self.refuse(key, &error, false);
                    Candidate::Unwritable(error)
                },
                Candidate::Change,
            )
    }

    /// What the store is to be told of this entry.
    fn change_of(&self, entry: &EntryRef<'_, V, L::Lease>) -> Result<Change, Error>
    where
        V: Serialize,
    {
        let EntryRef { key, slot } = *entry;
        match slot {
            Slot::Gone { state } => {
                let cause = if state.is_automatic {
                    Cause::Expired
                } else {
                    Cause::Removed
                };
                let delete = Change::delete(key.clone()).because(cause);
                Ok(self.guarded(state.is_automatic, slot, delete))
            }
            Slot::Live {
                value,
                lease,
                state,
            } => {
                let expires_at = self.lifetime.stored_expiry(lease);
                if self.lifetime.only_touched(lease) {
                    let touch = Change::touch(key.clone(), expires_at);
                    return Ok(self.guarded(true, slot, touch));
                }
                let put = Change::put(key.clone(), self.encode(value)?, expires_at)
                    .written_at(self.lifetime.written_at(lease))
                    .likely_new(state.stored == StoredVersion::ABSENT);
                Ok(self.guarded(state.is_automatic, slot, put))
            }
        }
    }

    /// A change that nobody asked for must not hit what another process has
    /// written meanwhile; nor must any, if the map looks for conflicts.
    fn guarded(&self, is_automatic: bool, slot: &Slot<V, L::Lease>, change: Change) -> Change {
        let guarded = is_automatic || self.conflicts.are_looked_for();
        if !guarded || !self.provider.capabilities().conditions {
            return change;
        }
        change.expect(slot.is_unchanged(), Otherwise::Skip)
    }
}
