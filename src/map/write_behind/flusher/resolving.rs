//! Resolves skipped changes: those that conflicted with another version in the
//! store.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use serde::{Serialize, de::DeserializeOwned};

use super::{DirtyBatch, Flusher};
use crate::{
    batch::{Committed, Skipped},
    error::{Error, ErrorKind, Result},
    event::{Conflict, KeySample, Operation, Resolution},
    map::{
        core::Core,
        lifetime::Lifetime,
        table::{
            discarded::RemovedEntry,
            entry::Slot,
            reentrancy::ReentrancyGuard,
            save_state::{Event, Mark, StoredVersion},
            shards::{EntryMut, Shard},
        },
        write_behind::{
            committer::unacknowledged,
            conflicts::OnConflict,
            waiters::{Waiter, Waiters, answer_all},
        },
    },
    record::Record,
};

/// Queues a skipped change again: it was certainly not applied.
pub(super) const FAILED: Event = Event::Failed { uncertain: false };

/// The stored version found instead, decoded if possible.
pub(super) struct StoreSide<V> {
    record: Option<Record>,
    pub(super) value: Option<Result<V>>,
    /// This map wrote it itself.
    own: bool,
    /// It is unreadable, and was listed before.
    listed: bool,
}

/// The decision about an entry.
enum Verdict {
    /// Commit its change again: there is no conflict, given the version now known.
    Again(StoredVersion),
    /// Commit the newer change written since, which does not conflict.
    Newer,
    /// The stored version replaces it.
    Take { lost: bool },
    /// Its value stays, although the store has none.
    Keep,
    /// The closure merges the two values.
    Merge,
}

/// The result for an entry.
pub(super) enum Fate {
    /// Store and map agree.
    Settled,
    /// It is queued again.
    Again,
    /// Its change is lost; these callers wait for it as well.
    Lost(Vec<Waiter>),
    /// It cannot be merged.
    Refused(Error),
}

/// The result for an entry, and values to drop without a lock.
pub(super) struct Resolved<V, L: Lifetime<V>> {
    fate: Fate,
    resolution: Option<Resolution>,
    removed: Option<RemovedEntry<V, L>>,
    /// The value that a merged one replaced.
    unmerged: Option<V>,
}

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Applies a committed batch to memory and resolves its skipped changes;
    /// returns whether some of those are queued again.
    pub(super) fn settle(&mut self, mut dirty: DirtyBatch, committed: Committed) -> bool {
        let Committed {
            revision, skipped, ..
        } = &committed;
        let changes = dirty.changes();
        self.committer().applied(changes, skipped, *revision);
        self.core.settle_all(&dirty, &committed);
        let again = self.resolve(&mut dirty.waiters, committed.skipped);
        dirty.waiters.answer(&Ok(()));
        self.spent = Some(dirty.batch);
        again
    }

    /// Resolves skipped changes; returns whether some are queued again.
    fn resolve(&mut self, waiters: &mut Waiters, skipped: Vec<Skipped>) -> bool {
        let mut again = Waiters::default();
        let mut some_wait = false;
        for Skipped { key, found, .. } in skipped {
            let sent = self.writer.unacknowledged.take(&key);
            let own = unacknowledged::made::<V>(&sent, found.as_ref());
            let mut waiting = waiters.take(&key);
            match self.core.resolve(&key, found.clone(), own) {
                Fate::Settled => answer_all(waiting, &Ok(())),
                Fate::Again => {
                    some_wait = true;
                    again.add(key, waiting);
                }
                Fate::Lost(late) => {
                    waiting.extend(late);
                    answer_all(waiting, &Err(self.core.lost(&key, found)));
                }
                Fate::Refused(error) => {
                    let keys = KeySample::of([&key]);
                    self.committer()
                        .report(Operation::Merge, keys, &error, true);
                    answer_all(waiting, &Err(error));
                }
            }
        }
        self.core.give_back(again);
        some_wait
    }
}

impl<V: Serialize + DeserializeOwned, L: Lifetime<V>> Core<V, L> {
    /// Whether any change of this map is committed with a condition.
    pub(in crate::map) fn asks_conditions(&self) -> bool {
        let asked = L::EXPIRES || self.conflicts.are_detected();
        asked && self.provider.capabilities().conditions
    }

    fn resolve(&self, key: &Arc<str>, found: Option<Record>, own: bool) -> Fate {
        // Its values are dropped outside the lock, because that runs foreign code.
        let mut found = self.read_found(found, own);
        let theirs = found.record.as_ref().map(|record| record.revision);
        let (mine, resolved) = {
            let _guard = ReentrancyGuard::enter();
            let hash = self.shards.hash(key);
            let mut shard = self.shards.write(hash);
            let entry = shard.find(hash, key);
            let known = entry.map_or(StoredVersion::ABSENT, |entry| entry.slot.state().stored);
            let resolved = self.resolve_in(&mut shard, (hash, key), &mut found);
            (known.revision(), resolved)
        };
        self.discard_entry(resolved.removed);
        self.drop_value((resolved.unmerged, found));
        if let Fate::Refused(error) = &resolved.fate {
            self.refuse(key, error, false);
        }
        if let Some(resolution) = resolved.resolution {
            self.tally.conflicts.fetch_add(1, Relaxed);
            self.conflicts.report(Conflict {
                map: self.name.clone(),
                key: key.clone(),
                mine,
                theirs,
                resolution,
            });
        }
        resolved.fate
    }

    fn read_found(&self, record: Option<Record>, own: bool) -> StoreSide<V> {
        let payload = record.as_ref().and_then(|record| record.value.as_ref());
        let value = payload.map(|payload| self.decode(payload).map(|decoded| decoded.value));
        let mut listed = false;
        if let (Some(record), Some(Err(error))) = (&record, &value) {
            listed = self.is_listed(record);
            if !listed {
                self.list_unreadable(record.clone(), error.clone().on_map(&self.name));
            }
        }
        StoreSide {
            record,
            value,
            own,
            listed,
        }
    }

    fn resolve_in(
        &self,
        shard: &mut Shard<'_, V, L::Lease>,
        (hash, key): (u64, &Arc<str>),
        found: &mut StoreSide<V>,
    ) -> Resolved<V, L> {
        // An entry that is not in flight was written after a clear. Callers of
        // the change that the clear removed now wait for the clear.
        let entry = shard.find_mut(hash, key);
        let entry = entry.filter(|entry| entry.slot.state().mark.is_in_flight());
        let Some(EntryMut { key, slot }) = entry else {
            return Resolved::new(Fate::Again);
        };
        match self.verdict(slot, found) {
            Verdict::Again(known) => {
                slot.learn(known);
                self.apply(key, slot.state_mut(), FAILED);
                Resolved::new(Fate::Again)
            }
            Verdict::Newer => {
                self.apply(key, slot.state_mut(), FAILED);
                Resolved::new(Fate::Again)
            }
            Verdict::Keep => {
                slot.learn(found.version());
                self.apply(key, slot.state_mut(), FAILED);
                Resolved::new(Fate::Again).by(Resolution::MapWon)
            }
            Verdict::Merge => self.merge(key, slot, found),
            Verdict::Take { lost } => {
                let key = key.clone();
                let was_gone = slot.is_gone();
                let taken = self.take_stored(shard, (hash, &key), found, lost);
                shard.count_gone(-isize::from(was_gone));
                taken
            }
        }
    }

    fn take_stored(
        &self,
        shard: &mut Shard<'_, V, L::Lease>,
        (hash, key): (u64, &Arc<str>),
        found: &mut StoreSide<V>,
        lost: bool,
    ) -> Resolved<V, L> {
        // Taken under the lock: a caller that waits by now wrote, or saw, the value
        // that is replaced here.
        let late = lost.then(|| self.requests.lock().saves.take(key));
        let Some(EntryMut { slot, .. }) = shard.find_mut(hash, key) else {
            return Resolved::new(Fate::Again);
        };
        self.apply(key, slot.state_mut(), Event::Replaced(found.version()));
        let removed = match (&found.record, found.value.take()) {
            (Some(record), Some(Ok(value))) => self.put_stored(slot, record, value),
            _ => self.remove_entry(shard, hash, key),
        };
        let resolved = match late {
            Some(late) => Resolved::new(Fate::Lost(late)).by(Resolution::StoreWon),
            None => Resolved::new(Fate::Settled),
        };
        Resolved {
            removed,
            ..resolved
        }
    }

    fn verdict(&self, slot: &Slot<V, L::Lease>, found: &StoreSide<V>) -> Verdict {
        let state = slot.state();
        let lease = slot.lease();
        // Automatic changes and touches give way to the stored version.
        let touched = lease.is_some_and(|lease| self.lifetime.only_touched(lease));
        let claimed = !state.is_automatic && !touched;
        let known = found.version();
        let agreed = slot.is_gone() && found.record.is_none();
        let own = found.own || known.revision().is_some_and(|_| known == state.stored);
        if agreed || !claimed && !own {
            return Verdict::Take { lost: false };
        }
        if own || found.listed {
            return Verdict::Again(known);
        }
        if state.mark == Mark::SavingQueued && self.still_holds(slot, found) {
            return Verdict::Newer;
        }
        let live = lease.is_some_and(|lease| self.lifetime.is_live(lease));
        match self.conflicts.policy {
            // The newer change must not learn the found version: if it expires
            // before it is committed, its expiry would remove that version.
            OnConflict::LastWrite => Verdict::Newer,
            OnConflict::Merge(_) | OnConflict::MergeWith(_) if live && self.is_over(found) => {
                Verdict::Keep
            }
            OnConflict::Merge(_) | OnConflict::MergeWith(_) if live => Verdict::Merge,
            _ => Verdict::Take { lost: true },
        }
    }

    fn still_holds(&self, slot: &Slot<V, L::Lease>, found: &StoreSide<V>) -> bool {
        let stored = found.record.as_ref().map(|r| (r.revision, r.expires_at));
        slot.is_unchanged().holds(stored, self.clock.now())
    }

    /// Whether the store has no entry, or an expired one.
    fn is_over(&self, found: &StoreSide<V>) -> bool {
        let Some(record) = &found.record else {
            return true;
        };
        L::EXPIRES && record.expires_at.is_some_and(|at| at <= self.clock.now())
    }

    fn lost(&self, key: &Arc<str>, found: Option<Record>) -> Error {
        let message = "another process has changed the entry: the map now holds the stored value, \
                       and this change is lost; see `found()`, and make the change again if needed";
        Error::new(ErrorKind::Conflict, message)
            .on_map(&self.name)
            .on_keys([key.clone()])
            .with_found(found)
    }
}

impl<V> StoreSide<V> {
    pub(super) fn version(&self) -> StoredVersion {
        let revision = self.record.as_ref().map(|record| record.revision);
        revision.map_or(StoredVersion::ABSENT, |at| StoredVersion::at(Some(at)))
    }
}

impl<V, L: Lifetime<V>> Resolved<V, L> {
    pub(super) fn new(fate: Fate) -> Self {
        Self {
            fate,
            resolution: None,
            removed: None,
            unmerged: None,
        }
    }

    pub(super) fn instead_of(self, unmerged: V) -> Self {
        Self {
            unmerged: Some(unmerged),
            ..self
        }
    }

    pub(super) fn by(self, resolution: Resolution) -> Self {
        Self {
            resolution: Some(resolution),
            ..self
        }
    }
}
