//! Puts together what goes into the next commit, and takes it apart after.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    assembled::{Assembled, answer_all},
    core::Core,
    flusher::Flusher,
    lifetime::Lifetime,
    marks::Taken,
    pending::Until,
    requests::{Awaited, Save},
};
use crate::{
    batch::{Change, Committed, MapBatch, Op},
    error::Result,
    event::{KeySample, Operation},
};

/// What is being put together.
struct Draft {
    epoch: u64,
    clear: bool,
    changes: Vec<Change>,
    bytes: usize,
    saves: Vec<Save>,
}

/// The map was cleared meanwhile: what was put together is of no use.
struct Cleared;

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// The next batch of what was queued before then; `None` if nothing is left.
    ///
    /// The keys that somebody waits for go first, but only the `first` batch of
    /// a round may hold nothing else, and a clear that comes during a round waits
    /// for the next one, unless it took something out of the queue that this
    /// round was to save: else a stream of them would keep a flush, or whatever
    /// else is pending, waiting for ever.
    pub(super) fn assemble(&mut self, until: &mut Until, first: bool) -> Option<Assembled> {
        let mut wanted = first;
        while wanted || self.has_more(until) {
            wanted = false;
            let mut draft = self.core.draft();
            // A clear in the middle takes every entry that was looked at with
            // it, so the next try begins with nothing taken.
            if self.fill(&mut draft, until, first).is_err() {
                self.core.give_back(draft.saves);
                wanted = true;
            } else if draft.changes.is_empty() && !draft.clear {
                answer_all(draft.saves, &Ok(()));
            } else {
                until.left = draft.epoch == self.round_epoch && self.has_left(until);
                return Some(self.finish(draft));
            }
        }
        None
    }

    fn has_more(&self, until: &Until) -> bool {
        let is_old = self.core.cleared.load(SeqCst) < self.round_epoch;
        let must_clear = self.core.must_clear() && (is_old || until.left);
        must_clear || self.has_left(until)
    }

    fn has_left(&self, until: &Until) -> bool {
        !self.parts.is_empty() || self.core.pending.has(until)
    }

    fn fill(&mut self, draft: &mut Draft, until: &mut Until, first: bool) -> Result<(), Cleared> {
        if let Some(part) = self.parts.pop() {
            return self.fill_with_part(draft, &part);
        }
        self.fill_with_awaited(draft, if first { 1 } else { 2 })?;
        while !self.is_full(draft, 1) {
            let Some(key) = self.core.pending.pop(until) else {
                break;
            };
            if let Taken::Unwritable(_) = self.add(draft, &key)? {
                // What replaced it may stand in front of the queue.
                until.rewind();
            }
        }
        Ok(())
    }

    /// Part of a refused batch, and nothing else: who is to blame must be found
    /// out.
    fn fill_with_part(&mut self, draft: &mut Draft, part: &[Arc<str>]) -> Result<(), Cleared> {
        let mut here = self.take_awaited_of(part).into_iter();
        let added = part
            .iter()
            .try_for_each(|key| self.add(draft, key).map(|_| ()))
            .and_then(|()| here.try_for_each(|save| self.add_awaited(draft, save)));
        self.core.give_back(here.collect());
        added
    }

    fn take_awaited_of(&self, part: &[Arc<str>]) -> Vec<Save> {
        let keys: HashSet<_> = part.iter().collect();
        let is_here = |save: &mut Save| matches!(&save.what, Awaited::Key(k) if keys.contains(k));
        let mut requests = self.core.requests.lock();
        requests.saves.extract_if(.., is_here).collect()
    }

    /// Fills one share of so many with the keys that somebody waits for.
    fn fill_with_awaited(&mut self, draft: &mut Draft, shares: usize) -> Result<(), Cleared> {
        let saves = std::mem::take(&mut self.core.requests.lock().saves);
        let mut saves = saves.into_iter();
        let mut filled = Ok(());
        while filled.is_ok() && !self.is_full(draft, shares) {
            let Some(save) = saves.next() else { break };
            filled = self.add_awaited(draft, save);
        }
        self.core.give_back(saves.collect());
        filled
    }

    fn add_awaited(&mut self, draft: &mut Draft, save: Save) -> Result<(), Cleared> {
        let Awaited::Key(key) = &save.what else {
            draft.saves.push(save);
            // That clear may have come after this batch was begun.
            let is_early = self.core.epoch.load(SeqCst) != draft.epoch;
            return if is_early { Err(Cleared) } else { Ok(()) };
        };
        let taken = self.add(draft, &key.clone());
        let answer = match taken {
            Ok(Taken::Nothing) if !draft.clear => Ok(()),
            Ok(Taken::Refused(error) | Taken::Unwritable(error)) => Err(error),
            // It is part of this batch; or there is nothing at the key, and the
            // clear that this batch carries is the later write.
            Ok(_) | Err(Cleared) => {
                draft.saves.push(save);
                return taken.map(|_| ());
            }
        };
        // Whoever stopped waiting needs no answer.
        let _ = save.answer.send(answer);
        Ok(())
    }

    /// Looks at an entry; its change, if there is one, goes into the draft.
    fn add(&mut self, draft: &mut Draft, key: &Arc<str>) -> Result<Taken, Cleared> {
        match self.core.take(key, draft.epoch) {
            Taken::Change(change) => {
                draft.bytes += weight(&change);
                draft.changes.push(change);
                Ok(Taken::Already)
            }
            Taken::Unwritable(error) => {
                self.report(Operation::Encode, KeySample::of([key]), &error, true);
                Ok(Taken::Unwritable(error))
            }
            Taken::Cleared => Err(Cleared),
            other => Ok(other),
        }
    }

    /// Whether one share of so many is full.
    fn is_full(&self, draft: &Draft, shares: usize) -> bool {
        draft.changes.len() >= self.core.options.max_batch / shares
            || draft.bytes >= self.core.options.max_batch_bytes / shares
    }

    fn finish(&mut self, draft: Draft) -> Assembled {
        let part = MapBatch::new(self.core.name.clone(), draft.changes).clearing(draft.clear);
        Assembled {
            batch: self.batch(part),
            epoch: draft.epoch,
            saves: draft.saves,
            uncertain: false,
        }
    }
}

impl<V, L: Lifetime<V>> Core<V, L> {
    fn draft(&self) -> Draft {
        let epoch = self.epoch.load(SeqCst);
        Draft {
            epoch,
            clear: self.cleared.load(SeqCst) != epoch,
            changes: Vec::new(),
            bytes: 0,
            saves: Vec::new(),
        }
    }

    /// These wait again, before those who came since.
    pub(super) fn give_back(&self, mut saves: Vec<Save>) {
        let mut requests = self.requests.lock();
        saves.append(&mut requests.saves);
        requests.saves = saves;
    }

    /// The batch is in the store.
    pub(super) fn settle_all(&self, assembled: &Assembled, committed: Committed)
    where
        V: DeserializeOwned,
    {
        let mut skipped: HashMap<_, _> = committed
            .skipped
            .into_iter()
            .map(|skipped| (skipped.key, skipped.found))
            .collect();
        for change in assembled.changes() {
            match skipped.remove(&change.key) {
                None => self.settle(change, committed.revision),
                Some(found) => self.settle_skipped(&change.key, found),
            }
        }
        if assembled.clears() {
            self.cleared.store(assembled.epoch, SeqCst);
        }
        self.tally.commits.fetch_add(1, Relaxed);
        let changes = assembled.changes().len() as u64;
        self.tally.changes.fetch_add(changes, Relaxed);
        *self.tally.last_commit.lock() = Some(self.clock.now());
    }
}

/// About how many bytes a change takes.
fn weight(change: &Change) -> usize {
    let payload = match &change.op {
        Op::Put { payload, .. } => payload.bytes.len(),
        Op::Touch { .. } | Op::Delete => 0,
    };
    change.key.len() + payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{MapClock, SystemClock},
        map::{lifetime::Forever, options::Options, requests::Ticket},
        provider::memory::Memory,
        record::Revision,
    };

    /// A map whose task does not run by itself.
    fn flusher() -> Flusher<u32, Forever> {
        let clock = Arc::new(MapClock::new(Arc::new(SystemClock::new())));
        let name = "map".try_into().unwrap();
        let options = Options::default();
        let core = Core::new(name, Arc::new(Memory::new()), options, clock, Forever);
        Flusher::new(Arc::new(core), Revision::ZERO)
    }

    fn insert_and_wait(core: &Core<u32, Forever>, key: &str, value: u32) -> Ticket {
        let put = core.alter(key, |spot| {
            spot.put(value, None);
            spot.wait()
        });
        put.unwrap()
    }

    fn clear_and_wait(core: &Core<u32, Forever>) -> Ticket {
        let mut ticket = Ticket::done();
        let ask = || {
            ticket = core.ask(|requests, answer| {
                let what = Awaited::Clear;
                requests.saves.push(Save { what, answer });
            });
        };
        core.clear(ask).unwrap();
        ticket
    }

    /// A `clear_and_save` that came between the moment when the flusher looked
    /// whether there was a clear, and the moment when it collected those who
    /// wait, was told that it was saved: by a batch without a clear, or by none.
    #[tokio::test]
    async fn a_clear_is_not_answered_by_a_draft_that_does_not_carry_it() {
        let mut flusher = flusher();
        let mut until = flusher.core.pending.until_now();
        let mut draft = flusher.core.draft();
        let mut ticket = Box::pin(clear_and_wait(&flusher.core).wait());
        assert!(flusher.fill(&mut draft, &mut until, true).is_err());
        flusher.core.give_back(draft.saves);
        let assembled = flusher.assemble(&mut until, true).unwrap();
        assert!(assembled.clears());
        assert_eq!(assembled.saves.len(), 1);
        assert!(futures_util::poll!(&mut ticket).is_pending());
        assembled.answer(&Ok(()));
        assert!(ticket.await.is_ok());
    }

    /// Two saves of one key shared a commit; a write between the flusher's looks
    /// at the one and the other put the key into the batch twice. A provider may
    /// apply a batch in any order, and Postgres refuses such a one.
    #[tokio::test]
    async fn a_key_is_in_a_batch_once_whoever_waits_for_it() {
        let mut flusher = flusher();
        let _first = insert_and_wait(&flusher.core, "a", 1);
        let _second = insert_and_wait(&flusher.core, "a", 2);
        let saves = std::mem::take(&mut flusher.core.requests.lock().saves);
        let mut draft = flusher.core.draft();
        for save in saves {
            assert!(flusher.add_awaited(&mut draft, save).is_ok());
            flusher.core.alter("a", |spot| spot.put(3, None)).unwrap();
        }
        assert_eq!((draft.changes.len(), draft.saves.len()), (1, 2));
        assert_eq!(flusher.core.pending(), 1);
        let assembled = flusher.finish(draft);
        let committed = Committed::at(Revision::new(1));
        flusher.core.settle_all(&assembled, committed);
        // The write that came in between is still to be saved.
        let mut until = flusher.core.pending.until_now();
        let next = flusher.assemble(&mut until, true).unwrap();
        assert_eq!(next.changes().len(), 1);
    }

    /// A clear in the middle of halving a refused batch dropped those who waited
    /// for the rest of the half: they were told that the runtime had ended.
    #[tokio::test]
    async fn a_clear_while_a_batch_is_halved_forgets_nobody_who_waits() {
        let mut flusher = flusher();
        let first = insert_and_wait(&flusher.core, "a", 1);
        let second = insert_and_wait(&flusher.core, "a", 2);
        let mut draft = flusher.core.draft();
        flusher.core.clear(|| {}).unwrap();
        let filled = flusher.fill_with_part(&mut draft, &["a".into()]);
        assert!(filled.is_err());
        flusher.core.give_back(draft.saves);
        let mut until = flusher.core.pending.until_now();
        let assembled = flusher.assemble(&mut until, true).unwrap();
        assembled.answer(&Ok(()));
        assert!(first.wait().await.is_ok());
        assert!(second.wait().await.is_ok());
    }
}
