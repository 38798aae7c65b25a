//! What becomes of the entries whose changes were left out, because the store
//! holds something else.

use std::{
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Flusher,
    assembled::{Assembled, answer_all},
    doubts,
    waiting::Waiting,
};
use crate::{
    batch::{Change, Skipped},
    error::{Error, ErrorKind, Result},
    event::{Conflict, KeySample, Operation, Resolution},
    map::{
        conflicts::OnConflict,
        core::Core,
        entry::{Known, Mark, Slot},
        inside::Inside,
        lifetime::Lifetime,
        old::Old,
        requests::Save,
        shards::{EntryMut, Shard},
    },
    record::{Record, Revision},
};

/// What is stored instead, as far as the map can read it.
pub(super) struct Found<V> {
    record: Option<Record>,
    pub(super) value: Option<Result<V>>,
    /// This map wrote it itself.
    own: bool,
    /// It is unreadable, and the map knew of it before.
    listed: bool,
}

/// What to do about an entry.
enum Verdict {
    /// Its change goes again: it met nobody, now that this is known.
    Again(Known),
    /// It was written again since, and that change meets nobody.
    Newer,
    /// What is stored takes its place.
    Take { lost: bool },
    /// Its value stays, although the store has none.
    Keep,
    /// It becomes what the closure makes of the two values.
    Merge,
}

/// What became of an entry.
pub(super) enum Fate {
    /// The store and the map agree.
    Settled,
    /// It waits again.
    Again,
    /// Its change is gone; these wait for it as well.
    Lost(Vec<Save>),
    /// It cannot be merged.
    Refused(Error),
}

/// The same, and what is left to do without a lock.
pub(super) struct Resolved<V, L: Lifetime<V>> {
    fate: Fate,
    resolution: Option<Resolution>,
    old: Option<Old<V, L>>,
    /// What a merged value took the place of.
    unmerged: Option<V>,
}

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Deals with the changes that were left out; says whether some wait again.
    pub(super) fn resolve(&mut self, assembled: &mut Assembled, skipped: Vec<Skipped>) -> bool {
        let mut waits = false;
        let mut waiting = Vec::new();
        let mut own_saves = Waiting::for_those(&skipped);
        own_saves.sort_in(mem::take(&mut assembled.saves));
        let mut late = Waiting::for_those(&skipped);
        for Skipped { key, found, .. } in skipped {
            let sent = self.doubts.take(&key);
            let own = doubts::made::<V>(&sent, found.as_ref());
            let mut saves = own_saves.take(&key);
            match self.core.resolve(&key, found.clone(), own, &mut late) {
                Fate::Settled => answer_all(saves, &Ok(())),
                Fate::Again => {
                    waits = true;
                    waiting.append(&mut saves);
                }
                Fate::Lost(late) => {
                    saves.extend(late);
                    answer_all(saves, &Err(self.core.lost(&key, found)));
                }
                Fate::Refused(error) => {
                    self.report(Operation::Merge, KeySample::of([&key]), &error, true);
                    answer_all(saves, &Err(error));
                }
            }
        }
        assembled.saves.extend(own_saves.into_rest());
        self.core.give_back(late.into_rest());
        self.core.give_back(waiting.into());
        waits
    }

    /// What a commit of these changes says of what was in doubt before it.
    pub(super) fn settle_doubts(
        &mut self,
        changes: &[Change],
        skipped: &[Skipped],
        revision: Option<Revision>,
    ) {
        self.doubts.settle(changes, skipped);
        // Accepted, and of no known revision.
        if revision.is_none() && self.core.conflicts.are_looked_for() {
            self.doubts.add(changes);
        }
    }
}

impl<V: Serialize + DeserializeOwned, L: Lifetime<V>> Core<V, L> {
    /// Whether any change of this map goes to the store on a condition.
    pub(super) fn asks_conditions(&self) -> bool {
        let asked = L::EXPIRES || self.conflicts.are_looked_for();
        asked && self.provider.capabilities().conditions
    }

    fn resolve(
        &self,
        key: &Arc<str>,
        found: Option<Record>,
        own: bool,
        late: &mut Waiting,
    ) -> Fate {
        // What is left of it is dropped once nothing is locked: foreign code runs
        // then.
        let mut found = self.read_found(found, own);
        let theirs = found.record.as_ref().map(|record| record.revision);
        let (mine, resolved) = {
            let _inside = Inside::enter();
            let hash = self.shards.hash(key);
            let mut shard = self.shards.write(hash);
            let entry = shard.find(hash, key);
            let known = entry.map_or(Known::NOT, |entry| entry.slot.trail().known);
            let resolved = self.resolve_in(&mut shard, (hash, key), &mut found, late);
            (known.revision(), resolved)
        };
        self.let_go(resolved.old);
        self.drop_value((resolved.unmerged, found));
        if let Fate::Refused(error) = &resolved.fate {
            self.refuse(key, error, false);
        }
        if let Some(resolution) = resolved.resolution {
            self.tally.conflicts.fetch_add(1, Relaxed);
            self.conflicts.tell(Conflict {
                map: self.name.clone(),
                key: key.clone(),
                mine,
                theirs,
                resolution,
            });
        }
        resolved.fate
    }

    fn read_found(&self, record: Option<Record>, own: bool) -> Found<V> {
        let payload = record.as_ref().and_then(|record| record.value.as_ref());
        let value = payload.map(|payload| self.decode(payload).map(|decoded| decoded.value));
        let mut listed = false;
        if let (Some(record), Some(Err(error))) = (&record, &value) {
            listed = self.is_listed(record);
            if !listed {
                self.list_unreadable(record.clone(), error.clone().on_map(&self.name));
            }
        }
        Found {
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
        found: &mut Found<V>,
        late: &mut Waiting,
    ) -> Resolved<V, L> {
        // What is not being saved came after a clear, and whoever waits for what
        // that took away waits for the clear.
        let entry = shard.find_mut(hash, key);
        let entry = entry.filter(|entry| entry.slot.trail().mark.is_saving());
        let Some(EntryMut { key, slot }) = entry else {
            return Resolved::new(Fate::Again);
        };
        match self.verdict(slot, found) {
            Verdict::Again(known) => {
                slot.learn(known);
                self.wait_again(key, slot.trail_mut());
                Resolved::new(Fate::Again)
            }
            Verdict::Newer => {
                self.wait_again(key, slot.trail_mut());
                Resolved::new(Fate::Again)
            }
            Verdict::Keep => {
                slot.learn(found.known());
                self.wait_again(key, slot.trail_mut());
                Resolved::new(Fate::Again).by(Resolution::MapWon)
            }
            Verdict::Merge => self.merge(key, slot, found),
            Verdict::Take { lost } => {
                let key = key.clone();
                let was_gone = slot.is_gone();
                let taken = self.take_stored(shard, (hash, &key), found, lost.then_some(late));
                shard.count_gone(-isize::from(was_gone));
                taken
            }
        }
    }

    fn take_stored(
        &self,
        shard: &mut Shard<'_, V, L::Lease>,
        (hash, key): (u64, &Arc<str>),
        found: &mut Found<V>,
        lost: Option<&mut Waiting>,
    ) -> Resolved<V, L> {
        // Asked for under the lock: whoever waits by now wrote, or saw, what is
        // taken away here.
        let late = lost.map(|waiting| waiting.take_late(key, &mut self.requests.lock()));
        let Some(EntryMut { slot, .. }) = shard.find_mut(hash, key) else {
            return Resolved::new(Fate::Again);
        };
        self.forget_saving(key, slot.trail());
        slot.trail_mut().mark = Mark::Clean;
        slot.learn(found.known());
        let old = match (&found.record, found.value.take()) {
            (Some(record), Some(Ok(value))) => self.put_stored(slot, record, value),
            _ => self.dismiss(shard, hash, key),
        };
        let resolved = match late {
            Some(late) => Resolved::new(Fate::Lost(late)).by(Resolution::StoreWon),
            None => Resolved::new(Fate::Settled),
        };
        Resolved { old, ..resolved }
    }

    fn verdict(&self, slot: &Slot<V, L::Lease>, found: &Found<V>) -> Verdict {
        let trail = slot.trail();
        let lease = slot.lease();
        // What nobody asked for claims nothing.
        let touched = lease.is_some_and(|lease| self.lifetime.only_touched(lease));
        let claimed = !trail.unasked && !touched;
        let known = found.known();
        let agreed = slot.is_gone() && found.record.is_none();
        let own = found.own || known.revision().is_some_and(|_| known == trail.known);
        if agreed || !claimed && !own {
            return Verdict::Take { lost: false };
        }
        if own || found.listed {
            return Verdict::Again(known);
        }
        if trail.mark == Mark::SavingQueued && self.still_holds(slot, found) {
            return Verdict::Newer;
        }
        let live = lease.is_some_and(|lease| self.lifetime.is_live(lease));
        match self.conflicts.policy {
            // What is found was not seen here: if the newer change expires before
            // it is committed, that is no reason to remove what is found.
            OnConflict::LastWrite => Verdict::Newer,
            OnConflict::Merge(_) | OnConflict::MergeWith(_) if live && self.is_over(found) => {
                Verdict::Keep
            }
            OnConflict::Merge(_) | OnConflict::MergeWith(_) if live => Verdict::Merge,
            _ => Verdict::Take { lost: true },
        }
    }

    fn still_holds(&self, slot: &Slot<V, L::Lease>, found: &Found<V>) -> bool {
        let stored = found.record.as_ref().map(|r| (r.revision, r.expires_at));
        slot.unchanged().holds(stored, self.clock.now())
    }

    /// Whether the store has no entry, or one that has expired.
    fn is_over(&self, found: &Found<V>) -> bool {
        let Some(record) = &found.record else {
            return true;
        };
        L::EXPIRES && record.expires_at.is_some_and(|at| at <= self.clock.now())
    }

    fn lost(&self, key: &Arc<str>, found: Option<Record>) -> Error {
        let message = "another process has changed the entry meanwhile: the map holds what is \
                       stored, and this change is gone; look at `found()`, and make it anew if need be";
        Error::new(ErrorKind::Conflict, message)
            .on_map(&self.name)
            .on_keys([key.clone()])
            .with_found(found)
    }
}

impl<V> Found<V> {
    pub(super) fn known(&self) -> Known {
        let revision = self.record.as_ref().map(|record| record.revision);
        revision.map_or(Known::NOT, |revision| Known::at(Some(revision)))
    }
}

impl<V, L: Lifetime<V>> Resolved<V, L> {
    pub(super) fn new(fate: Fate) -> Self {
        Self {
            fate,
            resolution: None,
            old: None,
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
