//! What is asked of the flusher beside saving what is pending: commits with
//! conditions, and standing still while somebody else commits.

use tokio::sync::oneshot;

use super::{hold::Hold, share::Share};
use crate::{
    batch::{Change, Otherwise},
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

impl Proposal {
    /// About how many bytes it takes in a batch.
    pub(super) fn weight(&self) -> usize {
        let part = self.share.part(Otherwise::Fail);
        part.changes.iter().map(Change::weight).sum()
    }

    /// It has not landed. Of a key that was in conflict, memory holds what was found.
    pub(super) fn withdraw(&self, error: &Error) {
        if error.kind() == ErrorKind::Conflict {
            let keys = self.share.keys();
            for key in keys.iter().filter(|key| error.keys().contains(key)) {
                self.share.learn(key, error.found().cloned());
            }
        }
        self.share.withdraw(error.may_have_applied());
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
