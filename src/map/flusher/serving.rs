//! The flusher's errands: conditional commits of its own, and standing still
//! while somebody else commits.
//!
//! They go through the one task that saves what is pending, so they are in
//! order with it: what was written to a key before goes before.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Flusher, probing::urgency};
use crate::{
    batch::{Batch, BatchId, Change, Committed, MapBatch, Otherwise},
    error::{Error, ErrorKind, Result},
    event::{KeySample, Operation},
    map::{
        delivery::{Delivery, is_an_answer},
        errands::{Errand, Proposal},
        hold::{self, Applied, Failure, Grant, Heard, Hold, Word},
        lifetime::Lifetime,
        pending::Until,
        share::land_all,
    },
};
use serde::{Serialize, de::DeserializeOwned};

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Does the errands that wait now.
    ///
    /// # Errors
    ///
    /// Why the store is down since. Everybody who waits was told.
    pub(super) async fn serve(&mut self) -> Result<()> {
        let waiting = self.core.requests.lock().errands.len();
        for _ in 0..waiting {
            if self.down || self.rewound {
                break;
            }
            let next = self.core.requests.lock().errands.pop_front();
            match next {
                None => break,
                Some(Errand::Propose(first)) => {
                    if let Some(first) = encoded(first) {
                        let group = self.group_with(first);
                        self.propose(group).await;
                    }
                }
                Some(Errand::Hold(hold)) => self.stand_still(hold).await,
            }
        }
        self.is_up()
    }

    fn is_up(&self) -> Result<()> {
        match self.core.health.borrow().error() {
            Some(error) if self.down => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// A store that has just failed is not tried again yet, and no commit shall
    /// hold other maps until it is.
    pub(super) async fn refuse_to_stand_still(&self) {
        loop {
            let woken = self.core.wake.notified();
            if !self.core.requests.lock().asked.resolutions.is_empty() {
                return;
            }
            if let Err(error) = self.is_up() {
                self.core.refuse_errands(&error, Errand::holds_others);
            }
            woken.await;
        }
    }

    /// Those who wait right behind, for other keys: they can share a commit.
    fn group_with(&self, first: Proposal) -> Vec<Proposal> {
        let options = &self.core.options;
        let mut bytes = first.weight();
        let mut keys: HashSet<_> = first.share.keys().into_iter().collect();
        let mut group = vec![first];
        while keys.len() < options.max_batch && bytes < options.max_batch_bytes {
            let Some(next) = self.next_without(&keys) else {
                break;
            };
            keys.extend(next.share.keys());
            // Encoded with nothing locked: foreign code runs, and takes its time.
            let next = encoded(next);
            bytes += next.as_ref().map_or(0, Proposal::weight);
            group.extend(next);
        }
        group
    }

    /// The proposal that waits in front, if it is for none of these keys.
    fn next_without(&self, keys: &HashSet<Arc<str>>) -> Option<Proposal> {
        let mut requests = self.core.requests.lock();
        let Some(Errand::Propose(next)) = requests.errands.front() else {
            return None;
        };
        if next.share.keys().iter().any(|key| keys.contains(key)) {
            return None;
        }
        match requests.errands.pop_front() {
            Some(Errand::Propose(next)) => Some(next),
            _ => None,
        }
    }

    /// Commits a group. If it is refused without a word on whom, one by one.
    async fn propose(&mut self, mut group: Vec<Proposal>) {
        let keys: Vec<_> = group.iter().flat_map(|p| p.share.keys()).collect();
        if let Err(error) = self.make_way(&keys).await {
            return answer_all(group, &error.nothing_applied());
        }
        group.retain_mut(|proposal| self.may_go(proposal));
        let refused = self.propose_together(group).await;
        for mut one in refused {
            // The one that was refused may have taken the store down with it.
            match self.is_up() {
                Ok(()) => drop(self.propose_together(vec![one]).await),
                Err(error) => one.answer(Err(error.nothing_applied())),
            }
        }
    }

    /// What the store will not take of this key stands in the way of what comes
    /// after it.
    fn may_go(&self, proposal: &mut Proposal) -> bool {
        let keys = proposal.share.keys();
        let refusal = keys.iter().find_map(|key| self.core.refusal(key));
        let may_go = refusal.is_none();
        if let Some(error) = refusal {
            proposal.answer(Err(error));
        }
        may_go
    }

    /// Commits a group in one batch; hands back those who may have another try.
    async fn propose_together(&mut self, mut group: Vec<Proposal>) -> Vec<Proposal> {
        let is_one = group.len() == 1;
        // One that fails writes nothing; one of several must not fail the others.
        let otherwise = if is_one {
            Otherwise::Fail
        } else {
            Otherwise::Skip
        };
        for proposal in &mut group {
            proposal.share.enlist();
        }
        let parts = group.iter().map(|p| p.share.part(otherwise));
        let changes: Vec<_> = parts.flat_map(|part| part.changes).collect();
        if changes.is_empty() {
            return Vec::new();
        }
        match self.deliver(self.changes(changes), &mut group).await {
            Ok(committed) => {
                let incarnation = committed.incarnation;
                self.land(group, committed);
                // Everybody who waits from here on is told.
                let _ = self.check_incarnation(incarnation);
            }
            Err(error) => return self.withdraw(group, &error),
        }
        Vec::new()
    }

    /// None of it has landed; hands back those who may have another try.
    fn withdraw(&self, group: Vec<Proposal>, error: &Error) -> Vec<Proposal> {
        for proposal in &group {
            proposal.withdraw(error);
        }
        if group.len() > 1 && !self.down && !self.rewound {
            return group;
        }
        answer_all(group, error);
        Vec::new()
    }

    /// Sends a batch until its fate is known. Those of the group are told if
    /// that takes longer than the attempts.
    pub(super) async fn deliver(
        &mut self,
        part: MapBatch,
        group: &mut [Proposal],
    ) -> Result<Committed> {
        let id = self.fenced_id();
        let now = self.core.clock.now();
        let part = self.claims.on(part, now);
        let keys = KeySample::of(part.changes.iter().map(|change| &change.key));
        let batch = Batch::new(id, self.horizon, now, vec![part]);
        let (words, heard) = hold::words();
        let delivery = Delivery::new(self.core.line(), batch, vec![words]);
        let name = self.core.name.clone();
        let unknown = |error: &Error| {
            let error = error.clone().on_map(&name);
            for proposal in group.iter_mut() {
                proposal.answer(Err(error.clone()));
            }
        };
        let (fate, ()) = tokio::join!(delivery.run(unknown), self.hear(heard));
        match &fate {
            Ok(_) => self.claims.acknowledge(id, self.core.clock.now()),
            Err(error) if error.kind() == ErrorKind::Rewound => {
                self.report(Operation::Commit, keys, error, true);
                self.stop_or_note(error);
            }
            // Whatever it was, the store has answered.
            Err(error) if is_an_answer(error) => self.is_well(),
            Err(_) => {}
        }
        fate.map_err(|error| error.on_map(&name))
    }

    pub(super) fn changes(&self, changes: Vec<Change>) -> MapBatch {
        MapBatch::new(self.core.name.clone(), changes)
    }

    fn land(&mut self, mut group: Vec<Proposal>, committed: Committed) {
        let skipped = committed.skipped.into_iter();
        let mut skipped: HashMap<_, _> = skipped.map(|s| (s.key, s.found)).collect();
        let is_applied = |change: &Change| !skipped.contains_key(&change.key);
        let parts = group.iter().map(|p| p.share.part(Otherwise::Skip));
        let changes = parts.flat_map(|part| part.changes).filter(is_applied);
        self.applied(Applied {
            revision: committed.revision,
            changes: changes.collect(),
        });
        for proposal in &mut group {
            let mut keys = proposal.share.keys().into_iter();
            let skipped = keys.find_map(|key| skipped.remove_entry(&key));
            let answer = if let Some((key, found)) = skipped {
                proposal.share.learn(&key, found.clone());
                proposal.share.withdraw(false);
                Err(Error::conflict(&self.core.name, &key, found))
            } else {
                land_all([&mut proposal.share], committed.revision);
                Ok(committed.revision)
            };
            proposal.answer(answer);
        }
    }

    /// Commits nothing until whoever asked for it is done.
    async fn stand_still(&mut self, hold: Hold) {
        if hold.granted.is_closed() {
            return;
        }
        let ready = self.get_ready(&hold).await;
        let (words, heard) = hold::words();
        let id = self.fenced_id();
        let granted = ready.map(|()| Grant {
            id,
            proof: BatchId::new(id.writer, 0),
            horizon: self.horizon,
            claims: self.claims,
            words,
        });
        // If nobody waits any more, the grant is dropped, and this is over.
        drop(hold.granted.send(granted));
        self.hear(heard).await;
    }

    async fn get_ready(&mut self, hold: &Hold) -> Result<()> {
        self.make_way(&hold.keys).await?;
        let refusal = hold.keys.iter().find_map(|key| self.core.refusal(key));
        refusal.map_or(Ok(()), Err)?;
        if hold.prove {
            self.introduce().await?;
        }
        Ok(())
    }

    /// Commits what is pending of these keys, and a clear that waits; nothing
    /// else. And sets aside what cannot be decoded, before it is overwritten.
    ///
    /// # Errors
    ///
    /// What the last attempt failed with; all of it is pending as before.
    async fn make_way(&mut self, keys: &[Arc<str>]) -> Result<()> {
        let claimed = self.core.claimed(keys);
        if !claimed.is_empty() || self.core.must_clear() {
            let claimed = self.part_of(claimed);
            self.parts
                .extend(claimed.in_pieces(self.core.options.max_batch));
            self.core.age.round_begins();
            let done = self.commit_until(&mut Until::beginning(), false).await;
            // Of what else is queued the oldest has waited as long as before.
            self.core.age.round_fails(self.unresolved.is_some());
            done?;
        }
        let unreadable = self.core.unreadable_at(keys);
        let set_aside = self.set_aside(unreadable).await;
        if let Err(error) = &set_aside {
            self.report(Operation::SetAside, KeySample::of(keys), error, true);
            if !is_an_answer(error) {
                self.give_up(error);
            }
        }
        set_aside
    }

    /// Listens to how the commit goes that this stands still for, and passes on
    /// that it shall be tried again at once: one time for each attempt.
    async fn hear(&mut self, mut heard: Heard) {
        let mut is_urged = false;
        loop {
            let Self { core, news, .. } = self;
            let word = tokio::select! {
                biased;
                word = heard.words.recv() => word,
                () = urgency(core, news, self.down), if !is_urged => {
                    is_urged = true;
                    self.begin_attempt();
                    heard.urge.notify_one();
                    continue;
                }
            };
            is_urged = false;
            let Some(word) = word else { break };
            match word {
                Word::Failed(failure) => self.hear_failure(failure).await,
                Word::Well(applied) => {
                    if let Some(applied) = applied {
                        self.applied(applied);
                    }
                    self.is_well();
                }
                Word::Acknowledged(id, incarnation) => {
                    // Everybody who waits is told.
                    let _ = self.acknowledge(id, incarnation);
                }
            }
        }
    }

    async fn hear_failure(&mut self, failure: Failure) {
        let Failure {
            attempt,
            batch,
            is_final,
            error,
        } = failure;
        let mut parts = batch.maps.iter();
        let part = parts.find(|part| part.map == self.core.name);
        let keys = part.iter().flat_map(|part| &part.changes).map(|c| &c.key);
        let keys = KeySample::of(keys);
        let operation = if self.down {
            Operation::Probe
        } else {
            Operation::Commit
        };
        self.attempts.made = attempt;
        let was_down = self.down;
        self.report(operation, keys, &error, is_final && !was_down);
        if is_final {
            // When the attempt began is not known here: all are told.
            self.begin_attempt();
            self.stop_or_note(&error);
            if !self.down {
                return;
            }
            // Nobody shall wait for as long as the store is down.
            let asked = std::mem::take(&mut self.core.requests.lock().asked);
            // Never a break: on an error the map stays open.
            let _ = self.answer(asked, Err(error), was_down).await;
        }
    }

    pub(super) fn applied(&mut self, Applied { revision, changes }: Applied) {
        self.horizon = self.horizon.max(revision.unwrap_or_default());
        self.settle_doubts(&changes, &[], revision);
        let now = self.core.clock.now();
        self.core.tally.count(changes.len(), now);
        self.is_well();
    }
}

/// The proposal, its value encoded; one whose value is refused is answered.
fn encoded(mut proposal: Proposal) -> Option<Proposal> {
    match proposal.share.encode() {
        Ok(()) => Some(proposal),
        Err(error) => {
            proposal.answer(Err(error));
            None
        }
    }
}

/// Tells all of them the same.
fn answer_all(group: Vec<Proposal>, error: &Error) {
    for mut proposal in group {
        proposal.answer(Err(error.clone()));
    }
}
