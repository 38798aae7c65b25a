//! Takes dirty entries into a batch: encodes their current values.

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

/// How many entries the flusher handles under one lock.
pub(crate) const RUN: usize = 16;

/// The result of looking at an entry for the next batch.
pub(crate) enum Candidate {
    /// A change, which is part of the commit from now on.
    Change(Change),
    /// It is part of this commit already.
    Already,
    /// It is part of this commit, and was changed since it was taken. The new change is
    /// queued.
    Outdated,
    /// Nothing to save: the store has it, or there is no entry.
    Nothing,
    /// It was refused before and has not changed since.
    Refused(Error),
    /// The value cannot be expressed as JSON, or does not decode again.
    Unwritable(Error),
    /// The map was cleared since the batch was started.
    Cleared,
}

/// An entry whose mark the flusher has moved.
pub(crate) enum Reserved {
    /// It is marked `Saving`; its value is still to be encoded.
    Saving {
        hash: u64,
        /// The place of its key in the queue.
        place: u32,
        /// It was counted already.
        is_counted: bool,
    },
    /// There is nothing to encode.
    Over(Candidate),
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Takes a queued entry into the batch that was started in this generation.
    pub(crate) fn take(&self, key: &Arc<str>, generation: u64) -> Candidate
    where
        V: Serialize + DeserializeOwned,
    {
        let hash = self.shards.hash(key);
        let mut reserved = [Reserved::Over(Candidate::Nothing)];
        let keys = std::slice::from_ref(key);
        self.reserve_run(
            self.shards.number(hash),
            &[(hash, 0)],
            keys,
            generation,
            &mut reserved,
        );
        let [reserved] = reserved;
        self.finish_taking(key, reserved, generation)
    }

    /// The first step of taking several entries: moves their marks. Returns for
    /// each, in this order, how to [continue](Self::finish_taking).
    pub(crate) fn reserve_all(&self, keys: &[Arc<str>], generation: u64) -> Vec<Reserved> {
        let hashed = keys.iter().enumerate();
        let hashed = hashed.map(|(n, key)| (self.shards.hash(key), n));
        let mut reserved: Vec<_> = keys
            .iter()
            .map(|_| Reserved::Over(Candidate::Nothing))
            .collect();
        for (shard, group) in self.shards.grouped(hashed) {
            for run in group.chunks(RUN) {
                self.reserve_run(shard, run, keys, generation, &mut reserved);
            }
        }
        reserved
    }

    /// Moves the marks of these keys of one shard, each given by its hash and its
    /// index in `keys`.
    fn reserve_run(
        &self,
        shard: usize,
        run: &[(u64, usize)],
        keys: &[Arc<str>],
        generation: u64,
        reserved: &mut [Reserved],
    ) {
        let _guard = ReentrancyGuard::enter();
        let mut shard = self.shards.lock(shard);
        let cleared = self.generation.load(Relaxed) != generation;
        for &(hash, n) in run {
            reserved[n] = if cleared {
                Reserved::Over(Candidate::Cleared)
            } else {
                self.reserve(&mut shard, hash, &keys[n])
            };
        }
        // Counted and unlinked last: the counter and the queue are shared with all
        // threads, and touching them in between would keep the processor from
        // prefetching the next entry. It is still the same critical section. Counted
        // before they are unlinked: they are pending all the time.
        let places = run.iter().filter_map(|(_, n)| match reserved[*n] {
            Reserved::Saving { place, .. } => Some((place, &keys[*n])),
            Reserved::Over(_) => None,
        });
        let is_new = |(_, n): &&(u64, usize)| {
            matches!(
                reserved[*n],
                Reserved::Saving {
                    is_counted: false,
                    ..
                }
            )
        };
        self.queue
            .counts
            .add_saving(run.iter().filter(is_new).count());
        self.queue.unlink_all(places);
    }

    fn reserve(&self, shard: &mut Shard<'_, V, L::Lease>, hash: u64, key: &Arc<str>) -> Reserved {
        let Some(EntryMut { key: found, slot }) = shard.find_mut(hash, key) else {
            return Reserved::Over(Candidate::Nothing);
        };
        let state = slot.state_mut();
        match state.mark {
            Mark::Clean => Reserved::Over(Candidate::Nothing),
            Mark::Saving | Mark::Proposed | Mark::ProposedQueued => {
                Reserved::Over(Candidate::Already)
            }
            // Not a second time: a batch holds each key once.
            Mark::SavingQueued => Reserved::Over(Candidate::Outdated),
            Mark::Refused => Reserved::Over(Candidate::Refused(self.refusal_of(key))),
            Mark::Queued => {
                // Unlinked and counted by the caller, for the whole run.
                state.apply(Event::Taken);
                let place = state.place;
                // Removed and inserted again since: the queue holds this other `Arc`.
                let is_other = !Arc::ptr_eq(found, key);
                if is_other {
                    self.queue.counts.add_saving(1);
                    self.queue.unlink(place, found);
                }
                Reserved::Saving {
                    hash,
                    place,
                    is_counted: is_other,
                }
            }
        }
    }

    /// The second step: encodes the value under the read lock, so that readers need
    /// not wait for a large one. A write since the first step is encoded too and
    /// has queued the key again: it is saved twice, never lost.
    pub(crate) fn finish_taking(
        &self,
        key: &Arc<str>,
        reserved: Reserved,
        generation: u64,
    ) -> Candidate
    where
        V: Serialize + DeserializeOwned,
    {
        let hash = match reserved {
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

    /// The change that brings the entry to the store.
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

    /// An automatic change must not overwrite another process's write; with
    /// conflict detection, no change may.
    fn guarded(&self, is_automatic: bool, slot: &Slot<V, L::Lease>, change: Change) -> Change {
        let guarded = is_automatic || self.conflicts.are_detected();
        if !guarded || !self.provider.capabilities().conditions {
            return change;
        }
        change.expect(slot.is_unchanged(), Otherwise::Skip)
    }
}
