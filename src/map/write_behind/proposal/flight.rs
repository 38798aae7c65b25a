//! Proposals on their way to the store in one batch.

use std::mem;

use super::{
    Proposal,
    share::{Share, land_all},
};
use crate::{
    batch::{Batch, Committed, MapBatch, Otherwise, Skipped},
    error::{Error, ErrorKind},
    map::{
        shared::Shared,
        write_behind::committer::{
            Committer,
            delivery::{Delivery, Outcome},
        },
    },
    provider::Provider,
    record::Revision,
};

/// Proposals on their way to the store in one batch. Their entries are marked from before
/// the first attempt until the outcome is known.
pub(crate) struct Flight {
    proposals: Vec<Proposal>,
    /// The batch may have been applied, as far as is known.
    uncertain: bool,
}

impl Flight {
    /// Marks the entries concerned.
    pub(crate) fn begin(mut proposals: Vec<Proposal>) -> Self {
        for share in proposals.iter_mut().flat_map(|p| &mut p.shares) {
            share.mark_proposed();
        }
        Self {
            proposals,
            uncertain: true,
        }
    }

    /// Commits the proposals: several of one map, or one of several maps. Answers
    /// their callers and returns the proposals that may be tried again, each by
    /// itself.
    pub(crate) async fn commit(
        mut self,
        provider: &dyn Provider,
        committers: &mut [Committer<'_>],
    ) -> Vec<Proposal> {
        let batch = self.batch(committers);
        let proposals = &mut self.proposals;
        let on_exhausted = |error: &Error| answer_all(proposals, error);
        match Delivery::new(provider, committers, &batch)
            .run(on_exhausted)
            .await
        {
            Outcome::Committed(committed) => {
                self.land(&batch, &committed, committers);
                Vec::new()
            }
            Outcome::Rejected { error, .. } => {
                committers.iter_mut().for_each(Committer::store_answered);
                self.fail(&error, true)
            }
            Outcome::Abandoned { error, .. } => self.fail(&error, false),
        }
    }

    fn batch(&self, committers: &mut [Committer<'_>]) -> Batch {
        // A single proposal that conflicts writes nothing; one of several must not
        // fail the others.
        let otherwise = match self.proposals.len() {
            1 => Otherwise::Fail,
            _ => Otherwise::Skip,
        };
        let now = committers[0].shared.clock.now();
        // The first map's writer provides the id. It commits nothing else until the
        // outcome is known.
        let id = committers[0].writer.next_id();
        let horizons = committers.iter().map(|c| c.writer.horizon);
        let after = horizons.max().unwrap_or_default();
        let parts = committers.iter().map(|committer| {
            let part = self.part(committer.shared, otherwise);
            let part = committer.writer.claims.on(part, now);
            part.having_seen(Some(committer.writer.horizon))
        });
        Batch::new(id, after, now, parts.collect::<Vec<_>>())
    }

    fn part(&self, map: &Shared, otherwise: Otherwise) -> MapBatch {
        let shares = self.proposals.iter().flat_map(|p| &p.shares);
        let shares = shares.filter(|share| *share.name() == map.name);
        let changes = shares.flat_map(|share| share.part(otherwise).changes);
        MapBatch::new(map.name.clone(), changes.collect())
    }

    /// Applies committed proposals to memory, except for conflicts, before any
    /// caller continues.
    fn land(mut self, batch: &Batch, committed: &Committed, committers: &mut [Committer<'_>]) {
        for (committer, part) in committers.iter_mut().zip(batch.maps.iter()) {
            let skipped = committed.skipped.iter().filter(|s| s.map == part.map);
            let skipped: Vec<_> = skipped.cloned().collect();
            committer.applied(&part.changes, &skipped, committed.revision);
        }
        for mut proposal in mem::take(&mut self.proposals) {
            let answer = land(&mut proposal, committed);
            proposal.answer(answer);
        }
        for committer in committers {
            // These proposals are committed; the error is for callers that still
            // wait.
            let _ = committer.check_incarnation(committed.incarnation);
        }
    }

    /// Withdraws proposals that were not applied and will not be. Returns those
    /// that may be tried again; answers the others.
    fn fail(mut self, error: &Error, may_try_again: bool) -> Vec<Proposal> {
        let mut proposals = mem::take(&mut self.proposals);
        for share in proposals.iter().flat_map(|p| &p.shares) {
            if error.kind() == ErrorKind::Conflict && error.map() == Some(share.name().as_str()) {
                let keys = share.keys();
                for key in keys.iter().filter(|key| error.keys().contains(key)) {
                    share.learn(key, error.found().cloned());
                }
            }
            share.withdraw(false);
        }
        if may_try_again && proposals.len() > 1 {
            return proposals;
        }
        answer_all(&mut proposals, error);
        Vec::new()
    }
}

fn land(proposal: &mut Proposal, committed: &Committed) -> crate::error::Result<Option<Revision>> {
    let skipped = { committed.skipped.iter() }.find_map(|skipped| {
        let share = proposal
            .shares
            .iter()
            .find(|share| is_of(&***share, skipped));
        share.map(|share| (share, skipped))
    });
    let Some((share, skipped)) = skipped else {
        land_all(&mut proposal.shares, committed.revision);
        return Ok(committed.revision);
    };
    share.learn(&skipped.key, skipped.found.clone());
    share.withdraw(false);
    Err(Error::conflict(
        &skipped.map,
        &skipped.key,
        skipped.found.clone(),
    ))
}

fn is_of(share: &dyn Share, skipped: &Skipped) -> bool {
    *share.name() == skipped.map && share.keys().contains(&skipped.key)
}

/// Answers the callers of all these proposals with the same error.
pub(crate) fn answer_all(proposals: &mut [Proposal], error: &Error) {
    for proposal in proposals {
        proposal.answer(Err(error.clone()));
    }
}

impl Drop for Flight {
    /// Removes the remaining marks, however the flight ends.
    fn drop(&mut self) {
        for share in self.proposals.iter().flat_map(|proposal| &proposal.shares) {
            share.withdraw(self.uncertain);
        }
    }
}
