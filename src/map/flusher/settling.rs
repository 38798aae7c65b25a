//! What becomes of the entries whose changes are in the store.

use std::{
    collections::HashSet,
    sync::atomic::Ordering::{Relaxed, SeqCst},
};

use super::assembled::Assembled;
use crate::{
    batch::{Change, Committed, Op, Skipped},
    map::{
        core::Core,
        entry::{Known, Mark, Slot},
        inside::Inside,
        lifetime::Lifetime,
        marks::RUN,
        shards::{EntryMut, Shard},
    },
    record::Revision,
};

impl<V, L: Lifetime<V>> Core<V, L> {
    /// The batch is in the store, but for these changes.
    pub(super) fn settle_all(&self, assembled: &Assembled, committed: Committed) -> Vec<Skipped> {
        let skipped: HashSet<_> = committed.skipped.iter().map(|s| &*s.key).collect();
        let is_applied = |change: &&Change| !skipped.contains(&*change.key);
        let applied: Vec<_> = assembled.changes().iter().filter(is_applied).collect();
        self.settle(&applied, committed.revision);
        if assembled.clears() {
            self.cleared.store(assembled.epoch, SeqCst);
        }
        self.tally.commits.fetch_add(1, Relaxed);
        self.tally.changes.fetch_add(applied.len() as u64, Relaxed);
        *self.tally.last_commit.lock() = Some(self.clock.now());
        committed.skipped
    }

    /// These changes were committed.
    ///
    /// Entries are far apart in memory, and waiting for each in turn is most
    /// of the work. Under one lock the processor fetches several at once; a
    /// run is short, so that nobody waits long for the lock.
    fn settle(&self, changes: &[&Change], revision: Option<Revision>) {
        let hashed = changes.iter().map(|c| (self.shards.hash(&c.key), *c));
        for (number, group) in self.shards.grouped(hashed) {
            for run in group.chunks(RUN) {
                let _inside = Inside::enter();
                let mut shard = self.shards.lock(number);
                let settled = |(hash, change): &&(u64, &Change)| {
                    self.settle_one(&mut shard, *hash, change, revision)
                };
                // Counted once: others count here too, and each time would keep
                // the processor from fetching the next entry meanwhile.
                self.saving
                    .fetch_sub(run.iter().filter(settled).count(), Relaxed);
                shard.shrink();
            }
        }
    }

    /// Whether the entry is being saved no more.
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
        // An entry that is not being saved came after a clear.
        if !slot.trail().mark.is_saving() {
            return false;
        }
        let trail = slot.trail_mut();
        trail.unasked &= trail.mark == Mark::SavingQueued;
        trail.known = match change.op {
            Op::Delete => Known::NOT,
            Op::Put { .. } | Op::Touch { .. } => Known::at(revision),
        };
        if trail.mark == Mark::SavingQueued {
            trail.mark = Mark::Queued;
            return false;
        }
        trail.mark = Mark::Clean;
        match slot {
            Slot::Live { lease, trail, .. } => {
                trail.over_expired = false;
                self.lifetime.stored(lease);
            }
            Slot::Gone { .. } => {
                shard.remove(hash, &change.key);
                shard.count_gone(-1);
            }
        }
        true
    }
}
