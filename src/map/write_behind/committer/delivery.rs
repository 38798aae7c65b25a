//! Sends a batch to the store until its outcome is known.
//!
//! Every commit of a map is sent here: batches of dirty entries, conditional
//! commits, and transactions of several maps.
//!
//! # Why the outcome is certain
//!
//! An attempt without an answer may have been applied, or may be applied later. The
//! identical batch is sent again: a store that has applied it repeats its answer.
//! If the store refuses it instead, no earlier attempt had been applied; but one
//! may still be on its way and find its conditions met later. So a fence is sent:
//! an empty batch of the same writer with the next sequence. Once the store has
//! applied the fence, all earlier attempts are superseded for good.

use std::{ops::ControlFlow, time::Duration};

use tracing::Instrument;

use super::{
    Committer,
    calls::answer_within,
    probing::{wait_to_probe, wait_to_retry},
};
use crate::{
    batch::{Batch, BatchId, Committed, MapBatch},
    error::{Error, ErrorKind, Result},
    event::{KeySample, Operation},
    map::{shared::Shared, spans},
    provider::Provider,
};

/// The outcome of a batch.
pub(crate) enum Outcome {
    /// The store has applied the batch.
    Committed(Committed),
    /// The store has examined and refused the batch, and no attempt will be applied
    /// any more.
    Rejected {
        error: Error,
        /// Some of it may have been applied: another store of a layer has applied its
        /// part, or the store broke the contract, which requires it to repeat its
        /// answer.
        uncertain: bool,
    },
    /// The store is unreachable, unusable, or has gone back in time. Nothing of the
    /// batch will be applied. Waiting callers have received the error, unless the
    /// map resolves a rewind by itself.
    Abandoned {
        error: Error,
        /// An attempt may have been applied before the store went back in time.
        uncertain: bool,
        /// Attempts are left: the batch may be rebuilt after this time, from the
        /// values as they are then. Only for a batch that [may
        /// change](Delivery::of_what_may_change); no caller was answered.
        retry_in: Option<Duration>,
    },
}

/// A batch being sent, and the maps that it belongs to; the first one provides its
/// id.
pub(crate) struct Delivery<'a, 'c> {
    provider: &'a dyn Provider,
    committers: &'a mut [Committer<'c>],
    batch: &'a Batch,
    operation: Operation,
    /// An attempt may have reached the store, or may yet.
    uncertain: bool,
    may_be_remade: bool,
    /// The store refused the batch, but an earlier attempt may still reach the
    /// store.
    refused: Option<Error>,
}

/// The step after an attempt without an outcome.
enum Next {
    Retry(Duration),
    /// The attempts are used up; whether callers were answered.
    Stop(bool),
}

impl<'a, 'c> Delivery<'a, 'c> {
    pub(crate) fn new(
        provider: &'a dyn Provider,
        committers: &'a mut [Committer<'c>],
        batch: &'a Batch,
    ) -> Self {
        Self {
            provider,
            committers,
            batch,
            operation: Operation::Commit,
            uncertain: false,
            may_be_remade: false,
            refused: None,
        }
    }

    pub(crate) fn of(self, operation: Operation) -> Self {
        Self { operation, ..self }
    }

    /// Hands a batch that was certainly not applied back to the caller, instead of
    /// sending it again.
    pub(crate) fn of_what_may_change(self) -> Self {
        Self {
            may_be_remade: true,
            ..self
        }
    }

    /// Sends the batch until its outcome is known. `on_exhausted` is called each time the
    /// attempts are used up before that. Then a batch that was certainly not
    /// applied is abandoned; one that may have been applied is sent again at each
    /// probe.
    pub(crate) async fn run(mut self, mut on_exhausted: impl FnMut(&Error)) -> Outcome {
        loop {
            let error = match self.attempt().await {
                ControlFlow::Break(outcome) => return outcome,
                ControlFlow::Continue(error) => error,
            };
            match self.failed(&error) {
                Next::Retry(delay) if self.may_be_remade && !self.uncertain => {
                    return Outcome::Abandoned {
                        error,
                        uncertain: false,
                        retry_in: Some(delay),
                    };
                }
                Next::Retry(delay) => self.pause(delay).await,
                Next::Stop(were_answered) => {
                    let uncertain = self.uncertain;
                    if were_answered {
                        let unknown = uncertain.then(|| error.clone().outcome_unknown());
                        on_exhausted(unknown.as_ref().unwrap_or(&error));
                    }
                    // A store that has gone back does not have the batch and never
                    // will: an attempt that is still on its way claims a state that
                    // the store has lost.
                    if !uncertain || error.kind() == ErrorKind::Rewound {
                        return Outcome::Abandoned {
                            error,
                            uncertain,
                            retry_in: None,
                        };
                    }
                    self.wait_to_probe().await;
                }
            }
        }
    }

    /// Makes one attempt. Breaks with the outcome if it is known then.
    async fn attempt(&mut self) -> ControlFlow<Outcome, Error> {
        for committer in &mut *self.committers {
            committer.begin_attempt();
        }
        // Sent even if it was refused before: an earlier attempt that timed out
        // may have been applied since, and the store then repeats its answer.
        let error = match self.send(self.batch).await {
            Ok(committed) => return ControlFlow::Break(self.committed(committed)),
            Err(error) => error,
        };
        if self.is_refused_in_part(&error) {
            self.uncertain = true;
        } else if !is_an_answer(&error) || error.kind() == ErrorKind::Rewound {
            return self.unanswered(error);
        }
        if !self.uncertain {
            return ControlFlow::Break(self.rejected(error));
        }
        let refusal = self.refusal_after(error);
        self.refused = Some(refusal.clone());
        match self.send(&self.fence()).await {
            Err(error) if !is_an_answer(&error) => self.unanswered(error),
            Ok(_) | Err(_) => ControlFlow::Break(self.rejected(refusal)),
        }
    }

    /// Whether some shards have refused their part of the batch for good, and the others
    /// have applied theirs. Repeating the batch would never end; the fence settles it.
    fn is_refused_in_part(&self, error: &Error) -> bool {
        let is_partial = error.kind() == ErrorKind::Refused && error.may_have_applied();
        is_partial && self.provider.capabilities().sharded
    }

    async fn send(&self, batch: &Batch) -> Result<Committed> {
        let lead = &self.committers[0];
        let limit = lead.shared.options.commit_timeout;
        let span = spans::commit(batch, self.provider, lead.writer.attempts.made + 1);
        let call = || self.provider.commit(batch);
        let answer = answer_within(limit, &lead.shared.clock, call).instrument(span);
        // With several maps, only the store knows which one an error is about.
        answer.await.map_err(|error| match &*self.committers {
            [one] => error.on_map(&one.shared.name),
            _ => error,
        })
    }

    fn fence(&self) -> Batch {
        let BatchId {
            writer, sequence, ..
        } = self.batch.id;
        let empty = self.batch.maps.iter().map(|part| {
            // A store that has gone back refuses the fence like the batch itself.
            MapBatch::new(part.map.clone(), Vec::new())
                .in_incarnation(part.incarnation)
                .after_acknowledged(part.acknowledged)
                .having_seen(part.seen)
        });
        let id = BatchId::new(writer, sequence + 1);
        let now = self.committers[0].shared.clock.now();
        Batch::new(id, self.batch.after, now, empty.collect::<Vec<_>>())
    }

    fn committed(&mut self, committed: Committed) -> Outcome {
        for committer in &mut *self.committers {
            // Before the callers are answered: a caller whose save succeeded must
            // find the map healthy.
            committer.store_answered();
            committer.acknowledge(self.batch.id);
        }
        Outcome::Committed(committed)
    }

    fn rejected(&self, error: Error) -> Outcome {
        let uncertain = self.uncertain;
        Outcome::Rejected { error, uncertain }
    }

    fn unanswered(&mut self, error: Error) -> ControlFlow<Outcome, Error> {
        self.uncertain |= error.may_have_applied();
        ControlFlow::Continue(error)
    }

    /// The error of a batch that is refused again. `Superseded` after another
    /// refusal means that the fence was applied; the earlier refusal is then the
    /// reason.
    fn refusal_after(&mut self, error: Error) -> Error {
        let is_fenced = error.kind() == ErrorKind::Superseded;
        let earlier = self.refused.take().filter(|_| is_fenced);
        earlier.unwrap_or(error)
    }

    /// Reports a failed attempt; returns the next step.
    fn failed(&mut self, error: &Error) -> Next {
        let lead = &mut self.committers[0];
        let (was_down, now) = (lead.writer.down, lead.shared.clock.now());
        let delay = lead.writer.attempts.failed(now);
        let delay = delay.filter(|_| !was_down && error.kind() == ErrorKind::Unavailable);
        let made = lead.writer.attempts.made;
        for committer in &mut *self.committers {
            committer.writer.attempts.made = made;
            let (operation, is_final) = if committer.writer.down {
                (Operation::Probe, false)
            } else {
                (self.operation, delay.is_none())
            };
            let keys = keys_of(self.batch, committer.shared);
            committer.report(operation, keys, error, is_final);
        }
        delay.map_or_else(|| Next::Stop(self.stop(error)), Next::Retry)
    }

    /// Stops the maps of the batch. Returns whether callers were answered.
    fn stop(&mut self, error: &Error) -> bool {
        let is_rewound = error.kind() == ErrorKind::Rewound;
        let is_kept = self.uncertain && !is_rewound;
        let mut were_answered = true;
        for committer in &mut *self.committers {
            let name = committer.shared.name.as_str();
            // The other maps of a transaction detect a rewind by themselves.
            if is_rewound && error.map().is_some_and(|map| map != name) {
                committer.store_answered();
            } else {
                were_answered &= committer.stop(error, is_kept);
            }
        }
        were_answered
    }

    /// Waits before the next attempt on a store that does not count as down yet.
    async fn pause(&mut self, delay: Duration) {
        wait_to_retry(self.committers, delay).await;
    }

    async fn wait_to_probe(&mut self) {
        wait_to_probe(self.committers).await;
    }
}

/// The keys of the map in this batch.
fn keys_of(batch: &Batch, map: &Shared) -> KeySample {
    let part = batch.maps.iter().find(|part| part.map == map.name);
    // Copies that are set aside go to another map.
    let part = part.or(batch.maps.first().filter(|_| batch.maps.len() == 1));
    KeySample::of(part.iter().flat_map(|part| &part.changes).map(|c| &c.key))
}

/// Whether the store has examined and refused the batch, rather than failed.
pub(crate) fn is_an_answer(error: &Error) -> bool {
    use ErrorKind::{Closed, Unavailable, Unusable};
    !error.may_have_applied() && !matches!(error.kind(), Unavailable | Unusable | Closed)
}
