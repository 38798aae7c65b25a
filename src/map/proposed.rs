//! Entries of a commit that memory takes over once it is in the store: they are
//! marked from before its first attempt until its fate is known.

use std::sync::Arc;

use super::{
    core::Core,
    entry::{Known, Mark, Slot, Trail},
    inside::Inside,
    lifetime::Lifetime,
    shards::EntryMut,
};

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Marks an entry as part of a commit that is about to be sent; where there is
    /// none, a tombstone stands for it. The flusher commits nothing meanwhile.
    pub(super) fn enlist(&self, key: &Arc<str>) {
        let _inside = Inside::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        // A clear takes all locks, and this one with them: it is the later write of
        // every key, and what is here was written after it.
        if self.must_clear() {
            return;
        }
        let Some(EntryMut { slot, .. }) = shard.find_mut(hash, key) else {
            let mut trail = Trail::new(Known::NOT);
            trail.mark = Mark::Proposed;
            shard.insert(hash, key.clone(), Slot::Gone { trail });
            shard.count_gone(1);
            return;
        };
        let is_claimed = self.is_claimed(slot);
        let mark = &mut slot.trail_mut().mark;
        *mark = match *mark {
            Mark::Clean => Mark::Proposed,
            // Written after what was pending went first.
            Mark::Queued if is_claimed => Mark::SavingQueued,
            Mark::Queued => Mark::ProposedQueued,
            other => other,
        };
    }

    /// The commit has not landed, nor will it: the entry is as it was, or as it was
    /// written meanwhile. Or nobody will find out whether it has, if `uncertain`.
    pub(super) fn withdraw(&self, key: &Arc<str>, uncertain: bool) {
        let _inside = Inside::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        let Some(EntryMut { key: own, slot }) = shard.find_mut(hash, key) else {
            return;
        };
        // Otherwise it came after a clear.
        if !slot.trail().mark.is_saving() {
            return;
        }
        if uncertain && self.provider.capabilities().conditions {
            return self.look_again(own, slot);
        }
        let is_gone = slot.is_gone();
        let trail = slot.trail_mut();
        trail.mark = trail.mark.landed();
        if is_gone && trail.known == Known::NOT {
            // The store never heard of it: there is nothing to tell it.
            self.unmark(own, trail);
            shard.remove(hash, key);
            shard.count_gone(-1);
        }
    }

    /// Has the next commit find out what the store holds: an unasked change takes
    /// what it finds, unless the store holds what memory knows.
    fn look_again(&self, key: &Arc<str>, slot: &mut Slot<V, L::Lease>) {
        let trail = slot.trail_mut();
        trail.doubt();
        let is_untouched = trail.mark == Mark::Proposed;
        trail.mark = trail.mark.landed();
        if is_untouched {
            self.mark(key, trail);
            trail.unasked = true;
        }
    }
}
