//! The table of entries, in shards that are locked one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::available_parallelism,
};

use ahash::RandomState;
use crossbeam_utils::CachePadded;
use hashbrown::{
    HashTable,
    hash_table::{Entry as TableEntry, OccupiedEntry},
};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::entry::Entry;
use crate::error::Result;

/// Fewer shards make the flusher and the writers collide.
const MIN_SHARDS: usize = 64;

/// A shard that is smaller than this keeps its memory.
const KEPT: usize = 256;

/// All entries of a map.
///
/// It is made here, of the standard library's own hash table, because a map
/// needs three things that concurrent maps do not offer without unsafe code: a
/// `clear` that happens at one point in time over all shards, iteration that
/// holds no lock between two items, and a write that looks its key up once.
pub(super) struct Shards<V, X> {
    all: Box<[Padded<V, X>]>,
    hasher: RandomState,
    shift: u32,
}

/// What the shards held.
pub(super) type Tables<V, X> = Vec<HashTable<Entry<V, X>>>;

type Padded<V, X> = CachePadded<RwLock<Shard<V, X>>>;

/// Shards that are locked for writing, by their numbers.
pub(super) type Several<'a, V, X> = BTreeMap<usize, RwLockWriteGuard<'a, Shard<V, X>>>;

/// Items of one shard, each with the hash of its key.
type Group<'a, V, X, T> = (&'a RwLock<Shard<V, X>>, Vec<(u64, T)>);

/// One shard: its entries, and how many of them are tombstones.
pub(super) struct Shard<V, X> {
    table: HashTable<Entry<V, X>>,
    gone: usize,
}

impl<V, X> Shards<V, X> {
    pub(super) fn new() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let count = (cores * 4).next_power_of_two().max(MIN_SHARDS);
        Self {
            all: (0..count).map(|_| CachePadded::default()).collect(),
            hasher: RandomState::new(),
            shift: u64::BITS - count.trailing_zeros(),
        }
    }

    #[inline]
    pub(super) fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The table itself looks at the lowest and the seven highest bits of a
    /// hash; the shard is chosen by those below the seven.
    #[inline]
    pub(super) fn number(&self, hash: u64) -> usize {
        let n = (hash << 7) >> self.shift;
        // Not a cast: on 32 bits too, the number of a shard fits.
        usize::try_from(n).unwrap_or(0)
    }

    #[inline]
    pub(super) fn of(&self, hash: u64) -> &RwLock<Shard<V, X>> {
        &self.all[self.number(hash)]
    }

    /// These items, each with the hash of its key, by shard.
    pub(super) fn grouped<T: Clone>(
        &self,
        hashed: impl Iterator<Item = (u64, T)>,
    ) -> impl Iterator<Item = Group<'_, V, X, T>> {
        let mut groups = vec![Vec::new(); self.all.len()];
        for (hash, item) in hashed {
            groups[self.number(hash)].push((hash, item));
        }
        self.each().zip(groups)
    }

    #[inline]
    pub(super) fn read(&self, hash: u64) -> RwLockReadGuard<'_, Shard<V, X>> {
        self.of(hash).read()
    }

    #[inline]
    pub(super) fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Shard<V, X>> {
        self.of(hash).write()
    }

    /// The lock of each shard, for those who walk over all of them.
    pub(super) fn each(&self) -> impl Iterator<Item = &RwLock<Shard<V, X>>> {
        self.all.iter().map(|shard| &**shard)
    }

    pub(super) fn nth(&self, n: usize) -> Option<&RwLock<Shard<V, X>>> {
        self.all.get(n).map(|shard| &**shard)
    }

    /// Empties the map at one point in time, at which `also` runs, and hands
    /// out what it held: whoever comes before sees all of it, whoever comes
    /// after sees none. If `also` errs, nothing happens.
    ///
    /// Whoever locks several shards does so in the order of their numbers.
    pub(super) fn take_all(&self, also: impl FnOnce() -> Result<()>) -> Result<Tables<V, X>> {
        let mut all: Vec<_> = self.each().map(RwLock::write).collect();
        also()?;
        Ok(all.iter_mut().map(|shard| shard.take()).collect())
    }

    /// Locks the shards of all these hashes: what happens in them happens at
    /// one point in time.
    pub(super) fn write_several(&self, hashes: impl Iterator<Item = u64>) -> Several<'_, V, X> {
        let numbers: BTreeSet<_> = hashes.map(|hash| self.number(hash)).collect();
        let lock = |number: usize| (number, self.all[number].write());
        numbers.into_iter().map(lock).collect()
    }

    /// Returns when every call that was inside a shard has left it.
    pub(super) fn wait_for_writers(&self) {
        self.each().for_each(|shard| drop(shard.write()));
    }

    /// Gives back the memory of a shard that was much fuller once. What is left to
    /// be moved is little then.
    pub(super) fn shrink(&self, shard: &mut Shard<V, X>) {
        // Not the capacity, which does not count what removals have left behind.
        let (entries, room) = (shard.table.len(), shard.table.num_buckets());
        if room > KEPT && entries < room / 8 {
            let rehash = |entry: &Entry<V, X>| self.hasher.hash_one(&*entry.key);
            shard.table.shrink_to(2 * entries, rehash);
        }
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.each()
            .map(|shard| shard.read().table.num_buckets())
            .sum()
    }

    #[inline]
    pub(super) fn entry<'a>(
        &self,
        shard: &'a mut Shard<V, X>,
        hash: u64,
        key: &str,
    ) -> TableEntry<'a, Entry<V, X>> {
        let rehash = |entry: &Entry<V, X>| self.hasher.hash_one(&*entry.key);
        shard.table.entry(hash, |entry| &*entry.key == key, rehash)
    }
}

impl<V, X> Default for Shard<V, X> {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            gone: 0,
        }
    }
}

impl<V, X> Shard<V, X> {
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &str) -> Option<&Entry<V, X>> {
        self.table.find(hash, |entry| &*entry.key == key)
    }

    #[inline]
    pub(super) fn find_mut(&mut self, hash: u64, key: &str) -> Option<&mut Entry<V, X>> {
        self.table.find_mut(hash, |entry| entry.is_of(key))
    }

    #[inline]
    pub(super) fn find_entry(
        &mut self,
        hash: u64,
        key: &str,
    ) -> Option<OccupiedEntry<'_, Entry<V, X>>> {
        self.table.find_entry(hash, |entry| entry.is_of(key)).ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<V, X>> {
        self.table.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry<V, X>> {
        self.table.iter_mut()
    }

    /// How many entries are not tombstones.
    pub(super) fn live(&self) -> usize {
        self.table.len() - self.gone
    }

    /// Tells the shard that one of its entries became a tombstone, or that a
    /// tombstone was removed or became an entry.
    pub(super) fn count_gone(&mut self, more: isize) {
        self.gone = self.gone.wrapping_add_signed(more);
    }

    fn take(&mut self) -> HashTable<Entry<V, X>> {
        self.gone = 0;
        std::mem::take(&mut self.table)
    }
}
