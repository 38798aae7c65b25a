//! Proposals: commits with conditions, or of several maps.
//!
//! They go through the flusher, which orders them with plain writes: an earlier
//! write to one of their keys is committed first.

pub(crate) mod flight;
pub(crate) mod map_share;
pub(crate) mod share;
pub(crate) mod staged;
pub(crate) mod transaction_commit;

use std::sync::Arc;

use tokio::sync::oneshot;

use self::share::Share;
use super::committer::writer::Writer;
use crate::{
    batch::{Change, Otherwise},
    error::{Error, ErrorKind, Result},
    record::Revision,
};

/// A task for the flusher besides saving pending changes. Jobs are served in
/// order.
pub(crate) enum Job {
    Propose(Proposal),
    Lend(Borrowing),
}

/// The channel for the outcome of a commit. The caller may have stopped waiting.
pub(crate) type Reply = oneshot::Sender<Result<Option<Revision>>>;

/// A commit that is applied as a whole or not at all. It is applied to memory once
/// it is known to be committed.
pub(crate) struct Proposal {
    /// One share per map.
    pub(crate) shares: Vec<Box<dyn Share>>,
    /// `None` once answered.
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

    /// Its approximate size in a batch, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let parts = self.shares.iter().map(|share| share.part(Otherwise::Fail));
        parts
            .flat_map(|p| p.changes)
            .map(|c| Change::weight(&c))
            .sum()
    }

    /// Whether it may share a batch with others: a conflict then skips its one
    /// change only.
    pub(crate) fn is_of_one_key(&self) -> bool {
        self.keys().len() <= 1
    }

    /// # Errors
    ///
    /// `Refused`, naming the key, if a value does not decode again.
    pub(crate) fn encode(&mut self) -> Result<()> {
        self.shares.iter_mut().try_for_each(|share| share.encode())
    }

    pub(crate) fn is_unanswered(&self) -> bool {
        self.reply.is_some()
    }

    /// Answers the caller, unless it was answered before.
    pub(crate) fn answer(&mut self, result: Result<Option<Revision>>) {
        if let Some(reply) = self.reply.take() {
            // A caller that stopped waiting needs no answer.
            let _ = reply.send(result);
        }
    }
}

/// A request for the writer of a map: until it is returned, the map's flusher
/// commits nothing.
pub(crate) struct Borrowing {
    /// Pending changes of these keys are committed first.
    pub(crate) keys: Vec<Arc<str>>,
    /// Whether the caller holds the writers of other maps already.
    pub(crate) holds_others: bool,
    pub(crate) granted: oneshot::Sender<Result<Loan>>,
}

/// The writer of a map, lent by its flusher. Dropping the loan returns it.
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
            // A flusher that has ended needs no writer.
            let _ = back.send(writer);
        }
    }
}

impl Job {
    /// Rejects the job; nothing of it was done.
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

/// Waits for the answer; an error if the flusher ended without one.
pub(crate) async fn answered<T>(answer: oneshot::Receiver<Result<T>>) -> Result<T> {
    answer.await.unwrap_or_else(|_| Err(unserved()))
}

pub(crate) fn unserved() -> Error {
    let message = "the runtime on which the map was opened has shut down, or its last handle was \
                   dropped, and its background task with it; it is unknown whether this was \
                   committed: open the map again and check";
    Error::new(ErrorKind::Closed, message).outcome_unknown()
}
