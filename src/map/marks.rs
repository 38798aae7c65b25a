//! The steps of an entry's way into the store. Each is one critical section.

use std::sync::{
    Arc,
    atomic::Ordering::{Relaxed, SeqCst},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    core::Core,
    entry::{Known, Mark, Slot, Trail},
    inside::Inside,
    lifetime::Lifetime,
    shards::{EntryMut, EntryRef, Shard},
};
use crate::{
    batch::{Change, Otherwise},
    error::Error,
};

/// How many entries the flusher may look at under one lock.
pub(super) const RUN: usize = 16;

/// What the flusher finds when it looks at an entry.
pub(super) enum Taken {
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
pub(super) enum Begun {
    /// It is being saved now; what of it, is still to be encoded.
    Saving {
        hash: u64,
        /// Where its key stood in the queue.
        place: u32,
    },
    /// There is nothing to encode.
    Over(Taken),
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Marks an entry as changed by nobody: a commit in flight that memory takes
    /// over is no older than that.
    pub(super) fn mark_unasked(&self, key: &Arc<str>, trail: &mut Trail) {
        let is_proposed = trail.mark.is_proposed();
        self.mark(key, trail);
        if is_proposed {
            trail.mark = Mark::ProposedQueued;
        }
    }

    /// Marks an entry as changed, with its shard locked for writing.
    #[inline]
    pub(super) fn mark(&self, key: &Arc<str>, trail: &mut Trail) {
        trail.mark = match trail.mark {
            Mark::Queued | Mark::SavingQueued => return,
            Mark::ProposedQueued => {
                trail.mark = Mark::SavingQueued;
                return;
            }
            Mark::Clean => Mark::Queued,
            Mark::Proposed => Mark::SavingQueued,
            Mark::Saving => {
                self.saving.fetch_sub(1, Relaxed);
                Mark::SavingQueued
            }
            Mark::Refused => {
                self.retried.fetch_add(1, SeqCst);
                self.refused.lock().remove(key);
                Mark::Queued
            }
        };
        let (place, queued) = self.pending.push(key.clone());
        trail.place = place;
        // A clear waits as well, without being in the queue.
        if queued == 1 && !self.must_clear() {
            self.age.queued_now(self.clock.now());
        }
        // The flusher sleeps until the first key, and then until there are
        // enough; between the two there is nothing to wake it for.
        if queued == 1 || queued == self.triggers.load().size {
            self.wake.notify_one();
        }
    }

    /// Forgets that an entry was changed, before the entry itself is forgotten.
    pub(super) fn unmark(&self, key: &Arc<str>, trail: &mut Trail) {
        match trail.mark {
            Mark::Queued | Mark::ProposedQueued => self.pending.unlink(trail.place, key),
            Mark::Refused => drop(self.refused.lock().remove(key)),
            Mark::Clean | Mark::Saving | Mark::SavingQueued | Mark::Proposed => {}
        }
        trail.mark = Mark::Clean;
    }

    /// Takes a queued entry into the commit that was begun in this epoch.
    pub(super) fn take(&self, key: &Arc<str>, epoch: u64) -> Taken
    where
        V: Serialize + DeserializeOwned,
    {
        let hash = self.shards.hash(key);
        let mut begun = [Begun::Over(Taken::Nothing)];
        let keys = std::slice::from_ref(key);
        self.begin_run(
            self.shards.number(hash),
            &[(hash, 0)],
            keys,
            epoch,
            &mut begun,
        );
        let [begun] = begun;
        self.finish_taking(key, begun, epoch)
    }

    /// The first step of taking several: moves their marks. Says of each, in
    /// this order, how to [go on](Self::finish_taking).
    pub(super) fn begin_all(&self, keys: &[Arc<str>], epoch: u64) -> Vec<Begun> {
        let hashed = keys.iter().enumerate();
        let hashed = hashed.map(|(n, key)| (self.shards.hash(key), n));
        let mut begun: Vec<_> = keys.iter().map(|_| Begun::Over(Taken::Nothing)).collect();
        for (shard, group) in self.shards.grouped(hashed) {
            for run in group.chunks(RUN) {
                self.begin_run(shard, run, keys, epoch, &mut begun);
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
        epoch: u64,
        begun: &mut [Begun],
    ) {
        let _inside = Inside::enter();
        let mut shard = self.shards.lock(shard);
        let cleared = self.epoch.load(Relaxed) != epoch;
        for &(hash, n) in run {
            begun[n] = if cleared {
                Begun::Over(Taken::Cleared)
            } else {
                self.begin_saving(&mut shard, hash, &keys[n])
            };
        }
        // Counted and unlinked last: these are shared with all threads, and
        // would keep the processor from fetching the next entry meanwhile. It
        // is still the same critical section.
        let places = run.iter().filter_map(|(_, n)| match begun[*n] {
            Begun::Saving { place, .. } => Some((place, &keys[*n])),
            Begun::Over(_) => None,
        });
        self.saving
            .fetch_add(self.pending.unlink_all(places), Relaxed);
    }

    fn begin_saving(&self, shard: &mut Shard<'_, V, L::Lease>, hash: u64, key: &Arc<str>) -> Begun {
        let Some(EntryMut { key: found, slot }) = shard.find_mut(hash, key) else {
            return Begun::Over(Taken::Nothing);
        };
        let trail = slot.trail_mut();
        match trail.mark {
            Mark::Clean => Begun::Over(Taken::Nothing),
            // Not a second time, although it was changed again: a batch holds a
            // key once. That change stays queued, and whoever waits for it is
            // not among those who were asked about before the key was taken.
            Mark::Saving | Mark::SavingQueued | Mark::Proposed | Mark::ProposedQueued => {
                Begun::Over(Taken::Already)
            }
            Mark::Refused => Begun::Over(Taken::Refused(self.refusal_of(key))),
            Mark::Queued => {
                trail.mark = Mark::Saving;
                if !Arc::ptr_eq(found, key) {
                    // Removed and inserted since: the queue knows it by this one.
                    self.pending.unlink(trail.place, found);
                }
                let place = trail.place;
                Begun::Saving { hash, place }
            }
        }
    }

    /// The second step: the value is encoded under the read lock, so that
    /// readers need not wait for a large one. Whatever was written since the
    /// first step is encoded, and has queued the key again: saved twice, never
    /// lost.
    pub(super) fn finish_taking(&self, key: &Arc<str>, begun: Begun, epoch: u64) -> Taken
    where
        V: Serialize + DeserializeOwned,
    {
        let hash = match begun {
            Begun::Saving { hash, .. } => hash,
            Begun::Over(taken) => return taken,
        };
        let encoded = {
            let _inside = Inside::enter();
            let shard = self.shards.read(hash);
            match shard.find(hash, key) {
                Some(entry) if self.epoch.load(Relaxed) == epoch => self.change_of(&entry),
                _ => return Taken::Cleared,
            }
        };
        encoded
            .and_then(|change| self.verified(change))
            .map_or_else(
                |error| {
                    let error = error.on_map(&self.name).on_keys([key.clone()]);
                    self.refuse(key, &error, false);
                    Taken::Unwritable(error)
                },
                Taken::Change,
            )
    }

    /// What the store is to be told of this entry.
    fn change_of(&self, entry: &EntryRef<'_, V, L::Lease>) -> Result<Change, Error>
    where
        V: Serialize,
    {
        let EntryRef { key, slot } = *entry;
        match slot {
            Slot::Gone { trail } => {
                let delete = Change::delete(key.clone());
                Ok(self.guarded(trail.unasked, slot, delete))
            }
            Slot::Live {
                value,
                lease,
                trail,
            } => {
                let expires_at = self.lifetime.stored_expiry(lease);
                if self.lifetime.only_touched(lease) {
                    let touch = Change::touch(key.clone(), expires_at);
                    return Ok(self.guarded(true, slot, touch));
                }
                let put = Change::put(key.clone(), self.encode(value)?, expires_at)
                    .written_at(self.lifetime.written_at(lease))
                    .likely_new(trail.known == Known::NOT);
                Ok(self.guarded(trail.unasked, slot, put))
            }
        }
    }

    /// A change that nobody asked for must not hit what another process has
    /// written meanwhile; nor must any, if the map looks for conflicts.
    fn guarded(&self, unasked: bool, slot: &Slot<V, L::Lease>, change: Change) -> Change {
        let guarded = unasked || self.conflicts.are_looked_for();
        if !guarded || !self.provider.capabilities().conditions {
            return change;
        }
        change.expect(slot.unchanged(), Otherwise::Skip)
    }

    /// The change was not committed: it waits again, in front. `uncertain`
    /// says that an attempt may have reached the store all the same.
    pub(super) fn requeue(&self, key: &Arc<str>, uncertain: bool) {
        let _inside = Inside::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        let Some(EntryMut { key, slot }) = shard.find_mut(hash, key) else {
            return;
        };
        let is_gone = slot.is_gone();
        let trail = slot.trail_mut();
        if trail.known == Known::NOT && trail.mark.is_saving() {
            if uncertain {
                trail.doubt();
            } else if is_gone {
                // The store never heard of it: there is nothing to tell it.
                self.forget_saving(key, trail);
                let key = key.clone();
                shard.remove(hash, &key);
                shard.count_gone(-1);
                return;
            }
        }
        self.wait_again(key, trail);
    }

    /// What was being saved takes its turn once more.
    pub(super) fn wait_again(&self, key: &Arc<str>, trail: &mut Trail) {
        match trail.mark {
            Mark::Saving => {
                self.saving.fetch_sub(1, Relaxed);
                trail.place = self.pending.push_front(key.clone());
                trail.mark = Mark::Queued;
            }
            Mark::SavingQueued => self.advance(key, trail),
            Mark::Clean | Mark::Queued | Mark::Refused | Mark::Proposed | Mark::ProposedQueued => {}
        }
    }

    pub(super) fn forget_saving(&self, key: &Arc<str>, trail: &Trail) {
        if trail.mark == Mark::SavingQueued {
            self.pending.unlink(trail.place, key);
        } else {
            self.saving.fetch_sub(1, Relaxed);
        }
    }

    /// What was changed while it was being saved, in vain, takes the turn that
    /// the key had: a flush that waits for the older change must not leave the
    /// newer one, which stands in its place, for later.
    fn advance(&self, key: &Arc<str>, trail: &mut Trail) {
        self.pending.unlink(trail.place, key);
        trail.place = self.pending.push_front(key.clone());
        trail.mark = Mark::Queued;
    }

    /// The change will never be taken: it stays in memory, out of the others'
    /// way. A later change of the key takes its turn.
    pub(super) fn refuse(&self, key: &Arc<str>, error: &Error, uncertain: bool) {
        let _inside = Inside::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        let Some(EntryMut { key, slot }) = shard.find_mut(hash, key) else {
            return;
        };
        let is_gone = slot.is_gone();
        let trail = slot.trail_mut();
        if uncertain && trail.mark.is_saving() {
            trail.doubt();
        }
        match trail.mark {
            // The store keeps the value as it was, in its older shape.
            Mark::Saving if trail.unasked && !is_gone => {
                self.saving.fetch_sub(1, Relaxed);
                trail.mark = Mark::Clean;
            }
            Mark::Saving => {
                self.saving.fetch_sub(1, Relaxed);
                self.refused.lock().insert(key.clone(), error.clone());
                trail.mark = Mark::Refused;
            }
            Mark::SavingQueued => self.advance(key, trail),
            Mark::Clean | Mark::Queued | Mark::Refused | Mark::Proposed | Mark::ProposedQueued => {}
        }
    }

    /// Queues every refused change again; says how many there were.
    pub(super) fn retry_refused(&self) -> usize {
        let keys: Vec<_> = self.refused.lock().keys().cloned().collect();
        keys.iter().filter(|key| self.retry(key)).count()
    }

    fn retry(&self, key: &Arc<str>) -> bool {
        let _inside = Inside::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        // While the map closes nothing may become pending behind its back.
        let found = shard
            .find_mut(hash, key)
            .filter(|_| self.check_open().is_ok());
        let refused = found.filter(|entry| entry.slot.trail().mark == Mark::Refused);
        let Some(EntryMut { key, slot }) = refused else {
            return false;
        };
        self.mark(key, slot.trail_mut());
        true
    }

    pub(super) fn refusal_of(&self, key: &Arc<str>) -> Error {
        // Mark and list change under the same shard's lock, which is held here.
        let refused = self.refused.lock().get(key).cloned();
        refused.unwrap_or_else(|| {
            Error::new(crate::error::ErrorKind::Refused, "the change was refused")
                .on_keys([key.clone()])
        })
    }
}
