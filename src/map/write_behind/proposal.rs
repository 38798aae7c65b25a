//! Commits that are asked for by name: with conditions, or of several maps.
//!
//! They go through the task that saves what is pending, so they are in order with
//! it: an earlier write to one of their keys goes before.

pub(crate) mod flight;
pub(crate) mod joint;
pub(crate) mod map_share;
pub(crate) mod share;
pub(crate) mod staged;

use std::sync::Arc;

use tokio::sync::oneshot;

use self::share::Share;
use super::committer::writer::Writer;
use crate::{
    batch::{Change, Otherwise},
    error::{Error, ErrorKind, Result},
    record::Revision,
};

/// What is asked of the flusher beside saving what is pending, in the order in which
/// it was asked.
pub(crate) enum Errand {
    Propose(Proposal),
    Lend(Borrowing),
}

/// Where the outcome of a commit goes. The caller may have stopped waiting.
pub(crate) type Reply = oneshot::Sender<Result<Option<Revision>>>;

/// A commit that lands whole or not at all. Memory takes it over once it is known to
/// be in the store.
pub(crate) struct Proposal {
    /// A share for each map.
    pub(crate) shares: Vec<Box<dyn Share>>,
    /// `None` once it was answered.
    reply: Option<Reply>,
}

impl Proposal {
    pub(crate) fn new(shares: Vec<Box<dyn Share>>, reply: Reply) -> Self {
        let reply = Some(reply);
        Self { shares, reply }
    }

    pub(crate) fn keys(&self) -> Vec<Arc<str>> {
        self.shares.iter().flat_map(|share| share.keys()).collect()
    }

    /// About how many bytes it takes in a batch.
    pub(crate) fn weight(&self) -> usize {
        let parts = self.shares.iter().map(|share| share.part(Otherwise::Fail));
        parts
            .flat_map(|p| p.changes)
            .map(|c| Change::weight(&c))
            .sum()
    }

    /// Whether it may share a batch with others: each conflict then leaves out the
    /// changes of one key.
    pub(crate) fn is_of_one_key(&self) -> bool {
        self.keys().len() <= 1
    }

    /// # Errors
    ///
    /// `Refused`, naming the key, if a map could not read one of the values again.
    pub(crate) fn encode(&mut self) -> Result<()> {
        self.shares.iter_mut().try_for_each(|share| share.encode())
    }

    /// Answers the caller, unless that was done before.
    pub(crate) fn answer(&mut self, result: Result<Option<Revision>>) {
        if let Some(reply) = self.reply.take() {
            // A caller that stopped waiting needs no answer.
            let _ = reply.send(result);
        }
    }
}

/// A request for the writer of a map: until it is given back, the map's flusher commits
/// nothing.
pub(crate) struct Borrowing {
    /// Pending changes of these keys are committed first.
    pub(crate) keys: Vec<Arc<str>>,
    /// Whether the writers of other maps are borrowed already.
    pub(crate) holds_others: bool,
    pub(crate) granted: oneshot::Sender<Result<Loan>>,
}

/// The writer of a map, lent by its flusher. It goes back when this is dropped.
pub(crate) struct Loan {
    writer: Option<Writer>,
    back: Option<oneshot::Sender<Writer>>,
}

impl Loan {
    pub(crate) fn new(writer: Writer, back: oneshot::Sender<Writer>) -> Self {
        Self {
            writer: Some(writer),
            back: Some(back),
        }
    }

    pub(crate) fn writer(&mut self) -> Option<&mut Writer> {
        self.writer.as_mut()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some((writer, back)) = self.writer.take().zip(self.back.take()) {
            // A flusher that is gone needs no writer.
            let _ = back.send(writer);
        }
    }
}

impl Errand {
    /// It is not done, and nothing of it was.
    pub(crate) fn refuse(self, error: &Error) {
        let error = error.clone().nothing_applied();
        match self {
            Self::Propose(mut proposal) => proposal.answer(Err(error)),
            // A caller that stopped waiting needs no answer.
            Self::Lend(borrowing) => drop(borrowing.granted.send(Err(error))),
        }
    }

    pub(crate) fn holds_others(&self) -> bool {
        matches!(self, Self::Lend(borrowing) if borrowing.holds_others)
    }
}

/// The answer, or that the flusher is gone and none will come.
pub(crate) async fn answered<T>(answer: oneshot::Receiver<Result<T>>) -> Result<T> {
    answer.await.unwrap_or_else(|_| Err(unserved()))
}

pub(crate) fn unserved() -> Error {
    let message = "the runtime on which the map was opened has ended, or its last handle was \
                   dropped, and its background task with it; whether this was committed is not \
                   known: open the map again and look";
    Error::new(ErrorKind::Closed, message).outcome_unknown()
}
