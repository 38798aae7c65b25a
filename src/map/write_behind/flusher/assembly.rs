//! Assembles the next batch from dirty entries.

use std::{
    mem,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use serde::{Serialize, de::DeserializeOwned};

use super::taking::{Candidate, Reserved};
use super::{DirtyBatch, Flusher};
use crate::{
    batch::{Change, MapBatch},
    error::Result,
    event::{KeySample, Operation},
    map::{
        core::Core,
        lifetime::Lifetime,
        write_behind::{
            dirty_queue::Watermark,
            waiters::{Waiter, Waiters, answer_all},
        },
    },
};

/// How many entries are taken in one go: enough that several lie in the same shard,
/// and few enough to stay in the processor's cache until they are encoded.
const AT_ONCE: usize = 1_024;

/// A batch being assembled.
struct Draft {
    generation: u64,
    clear: bool,
    changes: Vec<Change>,
    bytes: usize,
    waiters: Waiters,
}

/// The map was cleared meanwhile; the draft is useless.
struct Cleared;

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Assembles the next batch of keys queued before the watermark; `None` if no
    /// key is left.
    ///
    /// Keys that callers wait for go first, but only the `first` batch of a round
    /// may consist of them alone: otherwise a stream of saves would starve a flush
    /// and other pending changes.
    pub(super) fn assemble(&mut self, until: &mut Watermark, first: bool) -> Option<DirtyBatch> {
        let mut wanted = first;
        while wanted || self.has_more(until) {
            wanted = false;
            let mut draft = self.core.draft();
            // A clear in the middle removes every entry that was taken, so the next
            // try starts with nothing taken.
            if self.fill(&mut draft, until, first).is_err() {
                self.core.give_back(draft.waiters);
                wanted = true;
            } else if draft.changes.is_empty() && !draft.clear {
                draft.waiters.answer(&Ok(()));
            } else {
                self.look_whether_emptied(until);
                return Some(self.finish(draft));
            }
        }
        None
    }

    /// Whether keys are left from before the watermark.
    ///
    /// Clears that come after the queue was found empty wait for the next round:
    /// otherwise a stream of clears would starve a flush.
    fn has_more(&self, until: &mut Watermark) -> bool {
        self.look_whether_emptied(until);
        let cleared = self.core.stored_generation.load(SeqCst);
        until.emptied.is_none_or(|generation| cleared < generation)
    }

    fn look_whether_emptied(&self, until: &mut Watermark) {
        if self.parts.is_empty() && !self.core.queue.has(until) {
            let generation = || self.core.generation.load(SeqCst);
            until.emptied.get_or_insert_with(generation);
        }
    }

    fn fill(
        &mut self,
        draft: &mut Draft,
        until: &mut Watermark,
        first: bool,
    ) -> Result<(), Cleared> {
        if let Some(part) = self.parts.pop() {
            return self.fill_with_part(draft, part, until);
        }
        // Reserved only here: a part may be small while very many keys are
        // pending.
        let all = self.core.queue.len().min(self.core.options.max_batch);
        draft.changes.reserve(all);
        self.fill_with_awaited(draft, if first { 1 } else { 2 }, until)?;
        while !self.is_full(draft, 1) {
            let room = self.core.options.max_batch - draft.changes.len();
            let keys = self.core.queue.pop(until, room.min(AT_ONCE));
            if keys.is_empty() {
                break;
            }
            self.add_all(draft, &keys, until)?;
        }
        Ok(())
    }

    /// Takes these entries; those that no longer fit are queued again, in front.
    fn add_all(
        &mut self,
        draft: &mut Draft,
        keys: &[Arc<str>],
        until: &mut Watermark,
    ) -> Result<(), Cleared> {
        let reserved = self.core.reserve_all(keys, draft.generation);
        self.core.queue.seen(keys.len());
        let mut rest = keys.iter().zip(reserved);
        for (key, reserved) in rest.by_ref() {
            let taken = self.core.finish_taking(key, reserved, draft.generation);
            self.add_taken(draft, key, taken, until)?;
            if self.is_full(draft, 1) {
                break;
            }
        }
        // Only entries taken here: those already in the draft stay there.
        let rest = rest.filter(|(_, reserved)| matches!(reserved, Reserved::Saving { .. }));
        for (key, _) in rest.rev() {
            self.core.requeue(key, false);
            until.rewind();
        }
        Ok(())
    }

    /// Fills the draft with this part only, because the refused key must be found,
    /// or because these changes must precede another commit.
    fn fill_with_part(
        &mut self,
        draft: &mut Draft,
        mut part: Vec<Arc<str>>,
        until: &mut Watermark,
    ) -> Result<(), Cleared> {
        let mut added = 0;
        while added < part.len() && !self.is_full(draft, 1) {
            let key = &part[added];
            // Before the entry is taken: a later caller may wait for a later
            // change.
            let waiters = self.core.requests.lock().saves.take(key);
            self.add_awaited(draft, key, waiters, until)?;
            added += 1;
        }
        if added < part.len() {
            self.parts.push(part.split_off(added));
        }
        Ok(())
    }

    /// Fills the draft up to `1 / shares` with keys that callers wait for.
    fn fill_with_awaited(
        &mut self,
        draft: &mut Draft,
        shares: usize,
        until: &mut Watermark,
    ) -> Result<(), Cleared> {
        // All of them before the first entry is taken: a later caller may wait for
        // a later change.
        let mut waiting = mem::take(&mut self.core.requests.lock().saves);
        draft.waiters.add_of_clear(waiting.take_of_clear());
        // Their clear may have come after this batch was started.
        let is_early = self.core.generation.load(SeqCst) != draft.generation;
        let mut filled = if is_early { Err(Cleared) } else { Ok(()) };
        while filled.is_ok() && !self.is_full(draft, shares) {
            let Some((key, waiters)) = waiting.pop() else {
                break;
            };
            filled = self.add_awaited(draft, &key, waiters, until);
        }
        self.core.give_back(waiting);
        filled
    }

    /// Takes an entry that these callers wait for.
    fn add_awaited(
        &mut self,
        draft: &mut Draft,
        key: &Arc<str>,
        waiters: Vec<Waiter>,
        until: &mut Watermark,
    ) -> Result<(), Cleared> {
        let answer = match self.add(draft, key, until) {
            Ok(Candidate::Nothing) if !draft.clear => Ok(()),
            Ok(Candidate::Refused(error) | Candidate::Unwritable(error)) => Err(error),
            // It is part of this batch; or there is no entry, and the clear in this
            // batch is the later write.
            taken => {
                draft.waiters.add(key.clone(), waiters);
                return taken.map(|_| ());
            }
        };
        answer_all(waiters, &answer);
        Ok(())
    }

    /// Takes an entry; its change, if any, goes into the draft.
    fn add(
        &mut self,
        draft: &mut Draft,
        key: &Arc<str>,
        until: &mut Watermark,
    ) -> Result<Candidate, Cleared> {
        let taken = self.core.take(key, draft.generation);
        self.add_taken(draft, key, taken, until)
    }

    fn add_taken(
        &mut self,
        draft: &mut Draft,
        key: &Arc<str>,
        taken: Candidate,
        until: &mut Watermark,
    ) -> Result<Candidate, Cleared> {
        match taken {
            Candidate::Change(change) => {
                draft.bytes += change.weight();
                draft.changes.push(change);
                Ok(Candidate::Already)
            }
            Candidate::Unwritable(error) => {
                // The change that replaced it may be in front of the queue.
                until.rewind();
                let keys = KeySample::of([key]);
                self.committer()
                    .report(Operation::Encode, keys, &error, true);
                Ok(Candidate::Unwritable(error))
            }
            Candidate::Cleared => Err(Cleared),
            other => Ok(other),
        }
    }

    /// Whether the draft has reached `1 / shares` of a batch.
    fn is_full(&self, draft: &Draft, shares: usize) -> bool {
        draft.changes.len() >= self.core.options.max_batch / shares
            || draft.bytes >= self.core.options.max_batch_bytes / shares
    }

    fn finish(&mut self, draft: Draft) -> DirtyBatch {
        let part = MapBatch::new(self.core.name.clone(), draft.changes).clearing(draft.clear);
        DirtyBatch {
            batch: self.writer.batch(part, &self.core.clock),
            generation: draft.generation,
            waiters: draft.waiters,
        }
    }
}

impl<V, L: Lifetime<V>> Core<V, L> {
    fn draft(&self) -> Draft {
        let generation = self.generation.load(SeqCst);
        Draft {
            generation,
            clear: self.stored_generation.load(SeqCst) != generation,
            changes: Vec::new(),
            bytes: 0,
            waiters: Waiters::default(),
        }
    }
}

#[cfg(test)]
mod tests;
