//! Assembles the next batch from dirty entries.

use std::{
    mem,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    DirtyBatch, Flusher,
    draft::{Cleared, Draft},
    taking::Candidate,
};
use crate::{
    batch::MapBatch,
    error::Result,
    event::{KeySample, Operation},
    map::{
        lifetime::Lifetime,
        write_behind::{
            dirty_queue::Watermark,
            waiters::{Waiter, Waiters, answer_all},
        },
    },
};

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
        let mut ahead = self.taken_ahead();
        let mut wanted = first || ahead.is_some();
        while wanted || self.has_more(until) {
            wanted = false;
            let mut draft = ahead.take().unwrap_or_else(|| self.core.draft());
            // A clear in the middle removes every entry that was taken, so the next
            // try starts with nothing taken.
            let filled = self.fill(&mut draft, until, first);
            self.report_unwritable(&mut draft);
            if filled.is_err() {
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

    /// The changes that were [taken ahead](Core::draft_ahead), if there are any.
    fn taken_ahead(&mut self) -> Option<Draft> {
        let mut draft = self.ahead.take()?;
        self.report_unwritable(&mut draft);
        Some(draft).filter(|draft| !draft.changes.is_empty())
    }

    /// Queues the changes again that were [taken ahead](Core::draft_ahead), in front of all
    /// others.
    pub(super) fn put_back_ahead(&mut self, until: &mut Watermark) {
        let Some(draft) = self.taken_ahead() else {
            return;
        };
        for change in draft.changes.iter().rev() {
            self.core.requeue(&change.key, false);
        }
        until.rewind();
    }

    fn report_unwritable(&mut self, draft: &mut Draft) {
        for (key, error) in mem::take(&mut draft.unwritable) {
            let keys = KeySample::of([&key]);
            self.committer()
                .report(Operation::Encode, keys, &error, true);
        }
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
        // Changes that were taken ahead fill half of a batch at most.
        let shares = if first || !draft.changes.is_empty() {
            1
        } else {
            2
        };
        self.fill_with_awaited(draft, shares, until)?;
        while self.core.add_some(draft, until, 1)? {}
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
        while added < part.len() && !self.core.is_full(draft, 1) {
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
        while filled.is_ok() && !self.core.is_full(draft, shares) {
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
            // It was taken ahead, and these callers may have changed it since.
            Ok(Candidate::Outdated) => {
                let mut later = Waiters::default();
                later.add(key.clone(), waiters);
                self.core.give_back(later);
                return Ok(());
            }
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
        draft.add(key, taken, until)
    }

    fn finish(&mut self, draft: Draft) -> DirtyBatch {
        let part = MapBatch::new(self.core.name.clone(), draft.changes).clearing(draft.clear);
        DirtyBatch {
            batch: self.writer.batch(part, &self.core.clock).divisible(true),
            generation: draft.generation,
            waiters: draft.waiters,
        }
    }
}

#[cfg(test)]
mod tests;
