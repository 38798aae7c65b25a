//! Applies a committed batch to its entries.

use std::{collections::HashSet, sync::atomic::Ordering::SeqCst};

use super::DirtyBatch;
use super::taking::RUN;
use crate::{
    batch::{Change, Committed, Op},
    map::{
        core::Core,
        lifetime::Lifetime,
        table::{
            entry::Slot,
            reentrancy::ReentrancyGuard,
            save_state::{Event, Mark, StoredVersion},
            shards::{EntryMut, Shard},
        },
    },
    record::Revision,
};

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Applies a committed batch to its entries, except for the skipped changes.
    pub(super) fn settle_all(&self, dirty: &DirtyBatch, committed: &Committed) {
        let skipped: HashSet<_> = committed.skipped.iter().map(|s| &*s.key).collect();
        let is_applied = |change: &&Change| !skipped.contains(&*change.key);
        let applied: Vec<_> = dirty.changes().iter().filter(is_applied).collect();
        self.settle(&applied, committed.revision);
        if dirty.clears() {
            self.stored_generation.store(dirty.generation, SeqCst);
        }
    }

    /// Applies committed changes to their entries.
    ///
    /// Entries are far apart in memory, and most of the work is waiting for each of
    /// them. Under one lock the processor fetches several at once; a run is short,
    /// so that no writer waits long for the lock.
    fn settle(&self, changes: &[&Change], revision: Option<Revision>) {
        let hashed = changes.iter().map(|c| (self.shards.hash(&c.key), *c));
        for (number, group) in self.shards.grouped(hashed) {
            for run in group.chunks(RUN) {
                let _guard = ReentrancyGuard::enter();
                let mut shard = self.shards.lock(number);
                let settled = |(hash, change): &&(u64, &Change)| {
                    self.settle_one(&mut shard, *hash, change, revision)
                };
                // Counted once per run: the counter is shared, and touching it each
                // time would keep the processor from prefetching the next entry.
                let settled = run.iter().filter(settled).count();
                self.queue.counts.remove_saving(settled);
                shard.shrink();
            }
        }
    }

    /// Applies a committed change to its entry; returns whether the entry was
    /// counted as saving.
    fn settle_one(
        &self,
        shard: &mut Shard<'_, V, L::Lease>,
        hash: u64,
        change: &Change,
        revision: Option<Revision>,
    ) -> bool {
        let Some(EntryMut { slot, .. }) = shard.find_mut(hash, &change.key) else {
            return false;
        };
        // An entry that is not in flight was written after a clear.
        let was_saving = slot.state().mark == Mark::Saving;
        let stored = match change.op {
            Op::Delete => StoredVersion::ABSENT,
            Op::Put { .. } | Op::Touch { .. } => StoredVersion::at(revision),
        };
        // Counted by the caller; the queue does not change.
        slot.state_mut().apply(Event::Committed(stored));
        if !was_saving {
            return false;
        }
        match slot {
            Slot::Live { lease, .. } => self.lifetime.stored(lease),
            Slot::Gone { .. } => {
                shard.remove(hash, &change.key);
                shard.count_gone(-1);
            }
        }
        true
    }
}
