//! What is asked of the flusher beside saving what is pending: commits with
//! conditions, and standing still while somebody else commits.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::{assembly::weight, core::Core, lifetime::Lifetime, phase, share::Share};
use crate::{
    batch::{Batch, BatchId, Change, Otherwise},
    error::{Error, ErrorKind, Result},
    record::Revision,
};

/// What is asked of the flusher, in the order in which it was asked.
pub(super) enum Errand {
    Propose(Proposal),
    Hold(Hold),
}

/// Tells what became of a commit. Whoever waits may have stopped waiting.
pub(super) type Reply = oneshot::Sender<Result<Option<Revision>>>;

/// A change of one key, on a condition.
pub(super) struct Proposal {
    pub(super) share: Box<dyn Share>,
    /// `None` once it was answered.
    pub(super) reply: Option<Reply>,
}

/// Somebody wants to commit to this map, and to others perhaps. From the grant
/// on the flusher commits nothing, until the [grant](Grant) is dropped.
pub(super) struct Hold {
    /// What is pending of these keys is committed first.
    pub(super) keys: Vec<Arc<str>>,
    /// Whether other maps are held meanwhile.
    pub(super) others: bool,
    /// Whether the grant has to [prove](Grant::proof) which store this is.
    pub(super) prove: bool,
    pub(super) granted: oneshot::Sender<Result<Grant>>,
}

/// The flusher stands still, for as long as this lives.
pub(super) struct Grant {
    /// For the batch. The sequence after it is free as well.
    pub(super) id: BatchId,
    /// Of a batch that the map's own store has to refuse as superseded, and no
    /// other store has a reason to.
    pub(super) proof: BatchId,
    /// The highest revision that the map has seen.
    pub(super) horizon: Revision,
    pub(super) words: Words,
}

/// What a flusher that stands still is told.
pub(super) type Words = mpsc::UnboundedSender<Word>;

#[derive(Clone)]
pub(super) enum Word {
    /// An attempt has failed.
    Failed(Failure),
    /// The store has answered; what was applied, if anything was.
    Well(Option<Applied>),
}

#[derive(Clone)]
pub(super) struct Failure {
    pub(super) attempt: u32,
    pub(super) batch: Batch,
    /// There is no other attempt for now; everybody who waits is to be told.
    pub(super) is_final: bool,
    pub(super) error: Error,
}

#[derive(Clone)]
pub(super) struct Applied {
    pub(super) revision: Option<Revision>,
    pub(super) changes: Vec<Change>,
}

impl Proposal {
    /// About how many bytes it takes in a batch.
    pub(super) fn weight(&self) -> usize {
        let part = self.share.part(Otherwise::Fail);
        part.changes.iter().map(weight).sum()
    }

    /// Tells the one who waits, unless that was done before.
    pub(super) fn answer(&mut self, result: Result<Option<Revision>>) {
        if let Some(reply) = self.reply.take() {
            // Whoever stopped waiting needs no answer.
            let _ = reply.send(result);
        }
    }
}

impl Errand {
    /// It is not done, and nothing of it was.
    pub(super) fn refuse(self, error: &Error) {
        let error = error.clone().nothing_applied();
        match self {
            Self::Propose(mut proposal) => proposal.answer(Err(error)),
            // Whoever stopped waiting needs no answer.
            Self::Hold(hold) => drop(hold.granted.send(Err(error))),
        }
    }

    pub(super) fn holds_others(&self) -> bool {
        matches!(self, Self::Hold(hold) if hold.others)
    }
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Leaves an errand with the flusher and wakes it. If there is none any
    /// more, the errand is refused, or dropped, which says as much.
    pub(super) fn leave(&self, errand: Errand) {
        let mut requests = self.requests.lock();
        if !requests.unserved {
            requests.errands.push_back(errand);
        } else if self.phase.is(phase::CLOSED) {
            errand.refuse(&self.closed());
        }
        drop(requests);
        self.wake.notify_one();
    }

    /// Refuses those errands for which nothing speaks.
    pub(super) fn refuse_errands(&self, error: &Error, which: impl Fn(&Errand) -> bool) {
        let refused = {
            let mut requests = self.requests.lock();
            let all = std::mem::take(&mut requests.errands);
            let (refused, left): (VecDeque<_>, _) = all.into_iter().partition(which);
            requests.errands = left;
            refused
        };
        for errand in refused {
            errand.refuse(error);
        }
    }
}

/// The answer, or that nobody is there any more to give one.
pub(super) async fn answered<T>(answer: oneshot::Receiver<Result<T>>) -> Result<T> {
    answer.await.unwrap_or_else(|_| Err(unserved()))
}

pub(super) fn unserved() -> Error {
    let message = "the runtime on which the map was opened has ended, or its last handle was \
                   dropped, and its background task with it; whether this was committed is not \
                   known: open the map again and look";
    Error::new(ErrorKind::Closed, message).outcome_unknown()
}
