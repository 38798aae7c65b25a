//! Serves jobs: commits proposals, and lends the writer to commits of several
//! maps.

use std::{collections::HashSet, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use super::{Flusher, OnExhausted};
use crate::{
    error::{Error, Result},
    event::{KeySample, Operation},
    map::{
        lifetime::Lifetime,
        write_behind::{
            committer::delivery::Outcome,
            dirty_queue::Watermark,
            proposal::{
                Borrowing, Job, Loan, Proposal,
                flight::{Flight, answer_all},
            },
        },
    },
};

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Serves the jobs that wait now, until the store fails.
    pub(super) async fn serve(&mut self) {
        let waiting = self.core.requests.lock().jobs.len();
        for _ in 0..waiting {
            if self.writer.down || self.writer.rewound {
                break;
            }
            let next = self.core.requests.lock().jobs.pop_front();
            match next {
                None => break,
                Some(Job::Propose(first)) => {
                    if let Some(first) = encoded(first) {
                        let group = self.group_with(first);
                        self.propose(group).await;
                    }
                }
                Some(Job::Lend(borrowing)) => self.lend(borrowing).await,
            }
        }
    }

    /// Groups a proposal with those that wait right behind it and are for other
    /// keys: they share a commit.
    fn group_with(&self, first: Proposal) -> Vec<Proposal> {
        let options = &self.core.options;
        let is_alone = !first.is_of_one_key();
        let mut bytes = first.weight();
        let mut keys: HashSet<_> = first.keys().into_iter().collect();
        let mut group = vec![first];
        while !is_alone && keys.len() < options.max_batch && bytes < options.max_batch_bytes {
            let Some(next) = self.next_without(&keys) else {
                break;
            };
            keys.extend(next.keys());
            // Encoded without a lock: foreign code runs and may be slow.
            let next = encoded(next);
            bytes += next.as_ref().map_or(0, Proposal::weight);
            group.extend(next);
        }
        group
    }

    /// Takes the next job, if it is a proposal for one key and for none of
    /// these.
    fn next_without(&self, keys: &HashSet<Arc<str>>) -> Option<Proposal> {
        let mut requests = self.core.requests.lock();
        let Some(Job::Propose(next)) = requests.jobs.front() else {
            return None;
        };
        if !next.is_of_one_key() || next.keys().iter().any(|key| keys.contains(key)) {
            return None;
        }
        match requests.jobs.pop_front() {
            Some(Job::Propose(next)) => Some(next),
            _ => None,
        }
    }

    /// Commits a group. If it is refused and the error does not say which proposal
    /// is to blame, commits them one by one.
    async fn propose(&mut self, mut group: Vec<Proposal>) {
        let keys: Vec<_> = group.iter().flat_map(Proposal::keys).collect();
        let mut refuse = |error: &Error| {
            answer_all(&mut group, &error.clone().nothing_applied());
        };
        if let Err(error) = self.make_way(&keys, &mut refuse).await {
            return refuse(&error);
        }
        // A proposal that got an error meanwhile must not be committed later: its
        // caller knows that nothing was written.
        group.retain_mut(|proposal| proposal.is_unanswered() && self.may_go(proposal));
        for mut one in self.propose_together(group).await {
            // The previous one may have found the store down.
            match self.committer().check_up() {
                Ok(()) => drop(self.propose_together(vec![one]).await),
                Err(error) => one.answer(Err(error.nothing_applied())),
            }
        }
    }

    /// Whether the proposal may be committed: a refused change blocks later
    /// proposals for its key. If not, answers it.
    fn may_go(&self, proposal: &mut Proposal) -> bool {
        let keys = proposal.keys();
        let refusal = keys.iter().find_map(|key| self.core.refusal(key));
        let may_go = refusal.is_none();
        if let Some(error) = refusal {
            proposal.answer(Err(error));
        }
        may_go
    }

    /// Commits a group in one batch; returns the proposals that may be tried again.
    async fn propose_together(&mut self, group: Vec<Proposal>) -> Vec<Proposal> {
        if group.is_empty() {
            return group;
        }
        let provider = self.core.provider.clone();
        let flight = Flight::begin(group);
        flight.commit(&*provider, &mut [self.committer()]).await
    }

    /// Lends the writer; commits nothing until it is returned.
    async fn lend(&mut self, borrowing: Borrowing) {
        let Borrowing { keys, granted, .. } = borrowing;
        if granted.is_closed() {
            return;
        }
        let mut granted = Some(granted);
        let mut refuse = |error: &Error| {
            if let Some(granted) = granted.take() {
                drop(granted.send(Err(error.clone().nothing_applied())));
            }
        };
        if let Err(error) = self.get_ready(&keys, &mut refuse).await {
            return refuse(&error);
        }
        // The caller got an error meanwhile: nothing was written.
        let Some(granted) = granted else {
            return;
        };
        let stand_in = self.writer.stand_in(&self.core.options.retry);
        let writer = std::mem::replace(&mut self.writer, stand_in);
        let (back, returned) = oneshot::channel();
        // If the caller has stopped waiting, the loan is dropped and the writer
        // returns at once.
        drop(granted.send(Ok(Loan::new(writer, back))));
        if let Ok(writer) = returned.await {
            self.writer = writer;
        }
    }

    async fn get_ready(&mut self, keys: &[Arc<str>], on_exhausted: OnExhausted<'_>) -> Result<()> {
        self.make_way(keys, on_exhausted).await?;
        let refusal = keys.iter().find_map(|key| self.core.refusal(key));
        refusal.map_or(Ok(()), Err)?;
        self.introduce(on_exhausted).await
    }

    /// Commits only pending changes of these keys and a pending clear, and copies
    /// unreadable records aside before they are overwritten.
    ///
    /// This may take as long as the store is down; `on_exhausted` answers the callers
    /// of these keys meanwhile.
    ///
    /// # Errors
    ///
    /// The error of the last attempt; everything is pending as before.
    async fn make_way(&mut self, keys: &[Arc<str>], on_exhausted: OnExhausted<'_>) -> Result<()> {
        let changed = self.core.with_user_changes(keys);
        if !changed.is_empty() || self.core.must_clear() {
            let parts = changed.chunks(self.core.options.max_batch);
            self.parts.extend(parts.map(<[_]>::to_vec));
            self.core.age.round_begins();
            let mut until = Watermark::beginning();
            let done = self.commit_until(&mut until, false, on_exhausted).await;
            // The oldest of the other queued keys has waited as long as before.
            self.core.age.round_fails(false);
            done?;
        }
        let unreadable = self.core.unreadable_at(keys);
        match self.committer().set_aside(&unreadable, on_exhausted).await {
            Ok(()) | Err(Outcome::Committed(_)) => Ok(()),
            Err(Outcome::Abandoned { error, .. }) => Err(error),
            Err(Outcome::Rejected { error, .. }) => {
                let keys = KeySample::of(keys);
                self.committer()
                    .report(Operation::SetAside, keys, &error, true);
                Err(error)
            }
        }
    }
}

/// Encodes a proposal; answers it if its value is refused.
fn encoded(mut proposal: Proposal) -> Option<Proposal> {
    match proposal.encode() {
        Ok(()) => Some(proposal),
        Err(error) => {
            proposal.answer(Err(error));
            None
        }
    }
}
