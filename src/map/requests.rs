//! What is asked of the flusher, and by whom.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::oneshot;

use super::errands::Errand;
use crate::error::{Error, ErrorKind, Result};

/// Where an answer goes. Whoever waits may have stopped waiting.
pub(super) type Answer = oneshot::Sender<Result<()>>;

/// Someone who waits for a change to be committed.
pub(super) struct Save {
    pub(super) what: Awaited,
    pub(super) answer: Answer,
}

/// What a [`Save`] waits for.
pub(super) enum Awaited {
    /// The change of this key, or a later one.
    Key(Arc<str>),
    /// The clear before this one's turn.
    Clear,
}

/// What is asked of the flusher.
#[derive(Default)]
pub(super) struct Requests {
    /// The flusher is gone, and nobody will answer.
    pub(super) unserved: bool,
    pub(super) saves: Vec<Save>,
    pub(super) asked: Asked,
    pub(super) errands: VecDeque<Errand>,
}

/// What is asked about the map as a whole.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) flushes: Vec<Answer>,
    pub(super) reloads: Vec<Answer>,
    pub(super) closes: Vec<Answer>,
}

impl Asked {
    pub(super) fn is_empty(&self) -> bool {
        self.flushes.is_empty() && self.reloads.is_empty() && self.closes.is_empty()
    }
}

impl Requests {
    pub(super) fn is_empty(&self) -> bool {
        self.saves.is_empty() && self.asked.is_empty() && self.errands.is_empty()
    }
}

/// Tells all of them the same.
pub(super) fn send(answers: Vec<Answer>, result: &Result<()>) {
    for answer in answers {
        // Whoever stopped waiting needs no answer.
        let _ = answer.send(result.clone());
    }
}

/// A promise of an answer.
pub(super) struct Ticket(Option<oneshot::Receiver<Result<()>>>);

impl Ticket {
    pub(super) fn new() -> (Answer, Self) {
        let (answer, ticket) = oneshot::channel();
        (answer, Self(Some(ticket)))
    }

    /// There is nothing to wait for.
    pub(super) fn done() -> Self {
        Self(None)
    }

    pub(super) async fn wait(self) -> Result<()> {
        match self.0 {
            None => Ok(()),
            Some(answer) => answer.await.unwrap_or_else(|_| Err(unserved())),
        }
    }

    pub(super) fn blocking_wait(self) -> Result<()> {
        match self.0 {
            None => Ok(()),
            Some(answer) => answer.blocking_recv().unwrap_or_else(|_| Err(unserved())),
        }
    }
}

fn unserved() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the runtime on which the map was opened has ended, and its background task with it; \
         the change is in memory only: open the map again on a running runtime",
    )
}
