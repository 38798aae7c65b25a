//! Iteration that holds no lock between two items.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{RwLock, RwLockReadGuard};

use super::{Map, core::Core, inside::Inside, lifetime::Lifetime, shards::Shard};

impl<V, L: Lifetime<V>> Map<V, L> {
    /// All pairs, copied shard by shard.
    ///
    /// Weakly consistent: an entry that is there all the time comes up once; one
    /// that comes, goes or changes meanwhile may come up as it was, as it is, or
    /// not at all. No lock is held between two items, so writes, also from
    /// inside the loop, and `.await`s are fine.
    pub fn iter(&self) -> impl Iterator<Item = (Arc<str>, V)> + use<V, L>
    where
        V: Clone,
    {
        self.walk(|key, value| (key.clone(), value.clone()))
    }

    /// All keys, as [`iter`](Self::iter) has them, without copying values.
    pub fn keys(&self) -> impl Iterator<Item = Arc<str>> + use<V, L> {
        self.walk(|key, _| key.clone())
    }

    /// Calls `each` for every pair, without copying values, one shard locked for
    /// reading at a time.
    ///
    /// # Panics
    ///
    /// If `each` calls a map.
    pub fn for_each(&self, mut each: impl FnMut(&str, &V)) {
        for shard in self.core.shards.each() {
            let _inside = Inside::enter();
            for entry in shard.read().iter() {
                if let Some((value, _)) = entry.slot.live(&self.core.lifetime) {
                    each(&entry.key, value);
                }
            }
        }
    }

    fn walk<T>(&self, copy: fn(&Arc<str>, &V) -> T) -> Walk<V, L, T> {
        Walk {
            core: self.core.clone(),
            next: 0,
            copied: VecDeque::new(),
            copy,
        }
    }
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// The keys of all entries, tombstones and expired ones among them.
    pub(super) fn keys(&self) -> Vec<Arc<str>> {
        let _inside = Inside::enter();
        let shards = self.shards.each().map(RwLock::read);
        let keys = |shard: RwLockReadGuard<'_, Shard<V, L::Lease>>| {
            shard.iter().map(|e| e.key.clone()).collect::<Vec<_>>()
        };
        shards.flat_map(keys).collect()
    }
}

/// Copies one shard, hands it out, and goes on to the next.
struct Walk<V, L: Lifetime<V>, T> {
    core: Arc<Core<V, L>>,
    next: usize,
    copied: VecDeque<T>,
    copy: fn(&Arc<str>, &V) -> T,
}

impl<V, L: Lifetime<V>, T> Iterator for Walk<V, L, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        while self.copied.is_empty() {
            let _inside = Inside::enter();
            let shard = self.core.shards.nth(self.next)?.read();
            let live = |e: &super::entry::Entry<V, L::Lease>| {
                let (value, _) = e.slot.live(&self.core.lifetime)?;
                Some((self.copy)(&e.key, value))
            };
            self.copied = shard.iter().filter_map(live).collect();
            self.next += 1;
        }
        self.copied.pop_front()
    }
}
