//! The table of entries: a `DashMap`, accessed through its shard locks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicIsize, Ordering::Relaxed},
    },
    thread::available_parallelism,
};

use ahash::RandomState;
use dashmap::{DashMap, RwLockReadGuard, RwLockWriteGuard, SharedValue};
use hashbrown::raw::RawTable;

use super::entry::Slot;
use crate::error::Result;

/// With fewer shards, the flusher and writers contend for them.
const MIN_SHARDS: usize = 64;
/// A shard with fewer buckets than this never shrinks.
const KEPT: usize = 256;

/// All entries of a map.
///
/// A `DashMap`, read and written through its shard locks ([`DashMap::shards`]). A
/// map needs three things that `DashMap`'s methods do not offer: a `clear` at one
/// point in time over all shards, a critical section over several keys, and a write
/// that looks up a key once without first making an `Arc` of it.
pub(crate) struct Shards<V, X> {
    map: DashMap<Arc<str>, Slot<V, X>, RandomState>,
    /// The number of tombstones in each shard. Changes only while the shard is
    /// locked for writing.
    gone: Box<[AtomicIsize]>,
}

/// A shard as `DashMap` stores it.
type Stored<V, X> = RawTable<Pair<V, X>>;
type Pair<V, X> = (Arc<str>, SharedValue<Slot<V, X>>);
/// The contents of the shards.
pub(crate) type Tables<V, X> = Vec<Stored<V, X>>;
/// Shards locked for writing, by number.
pub(crate) type Several<'a, V, X> = BTreeMap<usize, Shard<'a, V, X>>;
/// Items of one shard, each with the hash of its key.
type Group<T> = (usize, Vec<(u64, T)>);

/// A shard locked for reading.
pub(crate) struct ReadShard<'a, V, X> {
    stored: RwLockReadGuard<'a, Stored<V, X>>,
}

/// A shard locked for writing.
pub(crate) struct Shard<'a, V, X> {
    stored: RwLockWriteGuard<'a, Stored<V, X>>,
    gone: &'a AtomicIsize,
    hasher: &'a RandomState,
}

/// An entry in a locked shard.
pub(crate) struct EntryRef<'a, V, X> {
    /// Shared with the dirty queue, so that queueing copies nothing.
    pub(crate) key: &'a Arc<str>,
    pub(crate) slot: &'a Slot<V, X>,
}

/// An entry in a shard locked for writing.
pub(crate) struct EntryMut<'a, V, X> {
    pub(crate) key: &'a Arc<str>,
    pub(crate) slot: &'a mut Slot<V, X>,
}

impl<V, X> Shards<V, X> {
    pub(crate) fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let count = (cores * 4).next_power_of_two().max(MIN_SHARDS);
        Self {
            map: DashMap::with_hasher_and_shard_amount(RandomState::new(), count),
            gone: (0..count).map(|_| AtomicIsize::new(0)).collect(),
        }
    }

    #[inline]
    pub(crate) fn hash(&self, key: &str) -> u64 {
        self.map.hasher().hash_one(key)
    }

    /// The shard of that hash, by `DashMap`'s own rule, so that its methods find
    /// entries stored here.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "DashMap takes a shard by as many bits as a pointer has, too"
    )]
    pub(crate) fn number(&self, hash: u64) -> usize {
        self.map.determine_shard(hash as usize)
    }

    /// Groups these items, each with the hash of its key, by shard.
    pub(crate) fn grouped<T: Clone>(
        &self,
        hashed: impl Iterator<Item = (u64, T)>,
    ) -> Vec<Group<T>> {
        let mut groups = vec![Vec::new(); self.gone.len()];
        for (hash, item) in hashed {
            groups[self.number(hash)].push((hash, item));
        }
        groups.into_iter().enumerate().collect()
    }

    #[inline]
    pub(crate) fn read(&self, hash: u64) -> ReadShard<'_, V, X> {
        ReadShard {
            stored: self.map.shards()[self.number(hash)].read(),
        }
    }

    #[inline]
    pub(crate) fn write(&self, hash: u64) -> Shard<'_, V, X> {
        self.lock(self.number(hash))
    }

    /// Locks the shard with this number for writing.
    #[inline]
    pub(crate) fn lock(&self, number: usize) -> Shard<'_, V, X> {
        Shard {
            stored: self.map.shards()[number].write(),
            gone: &self.gone[number],
            hasher: self.map.hasher(),
        }
    }

    fn lock_each(&self) -> impl Iterator<Item = Shard<'_, V, X>> {
        (0..self.gone.len()).map(|number| self.lock(number))
    }

    /// The number of entries that are not tombstones. Locks one shard after the
    /// other.
    pub(crate) fn len(&self) -> usize {
        let shards = self.map.shards().iter().zip(&self.gone);
        let live = shards.map(|(shard, gone)| {
            let stored = shard.read();
            stored.len().saturating_add_signed(-gone.load(Relaxed))
        });
        live.sum()
    }

    /// Calls `each` on every entry; one shard at a time is locked for reading.
    pub(crate) fn for_each(&self, mut each: impl FnMut(EntryRef<'_, V, X>)) {
        for item in &self.map {
            let (key, slot) = item.pair();
            each(EntryRef { key, slot });
        }
    }

    /// Calls `each` on every entry; one shard at a time is locked for writing.
    pub(crate) fn for_each_mut(&self, mut each: impl FnMut(EntryMut<'_, V, X>)) {
        for mut item in self.map.iter_mut() {
            let (key, slot) = item.pair_mut();
            each(EntryMut { key, slot });
        }
    }

    /// The keys of the entries that `keep` accepts.
    pub(crate) fn keys(&self, keep: impl Fn(EntryRef<'_, V, X>) -> bool) -> Vec<Arc<str>> {
        let mut keys = Vec::new();
        self.for_each(|EntryRef { key, slot }| {
            keys.extend(keep(EntryRef { key, slot }).then(|| key.clone()));
        });
        keys
    }

    /// Empties the table at one point in time, at which `also` runs, and returns
    /// its contents. A call before that point sees all entries, a call after it
    /// sees none. If `also` returns an error, nothing happens.
    ///
    /// Shards are always locked in the order of their numbers, so calls that lock
    /// several shards cannot deadlock.
    pub(crate) fn take_all(&self, also: impl FnOnce() -> Result<()>) -> Result<Tables<V, X>> {
        let mut all: Vec<_> = self.lock_each().collect();
        also()?;
        Ok(all.iter_mut().map(Shard::take).collect())
    }

    /// Locks the shards of all these hashes, so that changes in them happen at one
    /// point in time.
    pub(crate) fn write_several(&self, hashes: impl Iterator<Item = u64>) -> Several<'_, V, X> {
        let numbers: BTreeSet<_> = hashes.map(|hash| self.number(hash)).collect();
        let lock = |number: usize| (number, self.lock(number));
        numbers.into_iter().map(lock).collect()
    }

    /// Returns when every call that held a shard lock has released it.
    pub(crate) fn wait_for_writers(&self) {
        self.lock_each().for_each(drop);
    }

    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        let shards = self.map.shards().iter();
        shards.map(|shard| shard.read().buckets()).sum()
    }
}

impl<V, X> ReadShard<'_, V, X> {
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &str) -> Option<EntryRef<'_, V, X>> {
        find(&self.stored, hash, key)
    }
}

impl<V, X> Shard<'_, V, X> {
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &str) -> Option<EntryRef<'_, V, X>> {
        find(&self.stored, hash, key)
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, hash: u64, key: &str) -> Option<EntryMut<'_, V, X>> {
        let (key, slot) = self.stored.get_mut(hash, is_of(key))?;
        let slot = slot.get_mut();
        Some(EntryMut { key, slot })
    }

    /// Adds an entry. The key must not have one.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, key: Arc<str>, slot: Slot<V, X>) {
        let rehash = |(key, _): &Pair<V, X>| self.hasher.hash_one(&**key);
        let pair = (key, SharedValue::new(slot));
        self.stored.insert_entry(hash, pair, rehash);
    }

    pub(crate) fn remove(&mut self, hash: u64, key: &str) -> Option<(Arc<str>, Slot<V, X>)> {
        let (key, slot) = self.stored.remove_entry(hash, is_of(key))?;
        Some((key, slot.into_inner()))
    }

    /// Adjusts the number of tombstones in the shard.
    pub(crate) fn count_gone(&mut self, more: isize) {
        self.gone.fetch_add(more, Relaxed);
    }

    /// Frees memory of a shard that was much fuller before. Cheap, because few
    /// entries have to move.
    pub(crate) fn shrink(&mut self) {
        // By buckets, not by capacity, which does not count slots left behind by
        // removals.
        let (entries, room) = (self.stored.len(), self.stored.buckets());
        if room > KEPT && entries < room / 8 {
            let rehash = |(key, _): &Pair<V, X>| self.hasher.hash_one(&**key);
            self.stored.shrink_to(2 * entries, rehash);
        }
    }

    fn take(&mut self) -> Stored<V, X> {
        self.gone.store(0, Relaxed);
        std::mem::take(&mut *self.stored)
    }
}

#[inline]
fn find<'a, V, X>(stored: &'a Stored<V, X>, hash: u64, key: &str) -> Option<EntryRef<'a, V, X>> {
    let (key, slot) = stored.get(hash, is_of(key))?;
    let slot = slot.get();
    Some(EntryRef { key, slot })
}

/// Whether a pair is the entry of that key. The flusher holds the same `Arc`, and
/// comparing pointers saves it from fetching the key's bytes from memory.
#[inline]
fn is_of<V, X>(key: &str) -> impl Fn(&Pair<V, X>) -> bool {
    move |(own, _)| std::ptr::eq(&raw const **own, key) || **own == *key
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, thread, time::Duration};

    use super::*;

    /// Two calls with different lock orders would deadlock.
    #[test]
    fn several_shards_are_locked_in_one_order_whatever_the_order_of_the_keys() {
        let shards = Arc::new(Shards::<u32, ()>::new());
        let hashes: Vec<_> = (0..16).map(|n| shards.hash(&n.to_string())).collect();
        let backwards = hashes.iter().rev().copied().collect();
        let (done, ended) = channel();
        for hashes in [hashes, backwards, Vec::new()] {
            let (shards, done) = (shards.clone(), done.clone());
            thread::spawn(move || {
                for _ in 0..5_000 {
                    drop(shards.write_several(hashes.iter().copied()));
                    if hashes.is_empty() {
                        drop(shards.take_all(|| Ok(())));
                    }
                }
                done.send(()).unwrap();
            });
        }
        for _ in 0..3 {
            let limit = Duration::from_secs(60);
            let ended = ended.recv_timeout(limit);
            ended.expect("threads that lock several shards deadlock");
        }
    }
}
