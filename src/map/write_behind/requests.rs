//! Requests to a map's flusher.

use std::{collections::VecDeque, mem};

use tokio::sync::oneshot;

use super::{
    proposal::Job,
    waiters::{Answer, Awaited, Waiter, Waiters, answer_all, take_early},
};
use crate::{
    error::{Error, ErrorKind, Result},
    map::api::builder::rewind::Rewind,
};

/// The requests that the flusher has not answered yet.
#[derive(Default)]
pub(crate) struct Requests {
    /// The flusher has ended; no request will be answered.
    pub(crate) unserved: bool,
    /// A failing store is to be tried again at once.
    pub(crate) retry: bool,
    /// How many attempts to commit have begun.
    attempts: u64,
    pub(crate) saves: Waiters,
    pub(crate) asked: Asked,
    /// The requests that the round under way will answer.
    pub(crate) round: Asked,
    pub(crate) jobs: VecDeque<Job>,
}

/// Requests about the map as a whole.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) flushes: Vec<Waiter>,
    pub(crate) reloads: Vec<Waiter>,
    pub(crate) closes: Vec<Waiter>,
    pub(crate) resolutions: Vec<Waiter>,
    /// The decision of the first resolution.
    pub(crate) resolution: Option<Rewind>,
}

/// A kind of request about the map as a whole.
#[derive(Clone, Copy)]
pub(crate) enum Request {
    Flush,
    Reload,
    Close,
    ResolveRewind(Rewind),
}

impl Asked {
    fn push(&mut self, request: Request, waiter: Waiter) {
        match request {
            Request::Flush => self.flushes.push(waiter),
            Request::Reload => self.reloads.push(waiter),
            Request::Close => self.closes.push(waiter),
            Request::ResolveRewind(how) => {
                self.resolution.get_or_insert(how);
                self.resolutions.push(waiter);
            }
        }
    }

    fn lists(&mut self) -> [&mut Vec<Waiter>; 4] {
        let Self {
            flushes,
            reloads,
            closes,
            resolutions,
            ..
        } = self;
        [flushes, reloads, closes, resolutions]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.flushes.is_empty()
            && self.reloads.is_empty()
            && self.closes.is_empty()
            && self.resolutions.is_empty()
    }

    /// Takes the callers that came before that attempt began. If `is_rewound`,
    /// callers that resolve a rewind keep waiting: another rewind is not their
    /// answer.
    fn take_early(&mut self, attempt: u64, is_rewound: bool) -> Vec<Waiter> {
        let lists = self
            .lists()
            .into_iter()
            .take(if is_rewound { 3 } else { 4 });
        lists.flat_map(|list| take_early(list, attempt)).collect()
    }

    pub(crate) fn answer(mut self, result: &Result<()>) {
        for list in self.lists() {
            answer_all(mem::take(list), result);
        }
    }
}

impl Requests {
    fn waiter(&self, answer: Answer) -> Waiter {
        Waiter::new(answer, self.attempts)
    }

    pub(crate) fn await_save(&mut self, what: Awaited, answer: Answer) {
        let waiter = self.waiter(answer);
        self.saves.push(what, waiter);
    }

    pub(crate) fn ask(&mut self, request: Request, answer: Answer) {
        let waiter = self.waiter(answer);
        self.asked.push(request, waiter);
    }

    /// Starts a round, which answers everything asked before.
    pub(crate) fn begin_round(&mut self) {
        self.round = mem::take(&mut self.asked);
    }

    /// Starts an attempt, on behalf of every caller that waits now.
    pub(crate) fn begin_attempt(&mut self) {
        self.attempts += 1;
        self.retry = false;
    }

    /// Takes the callers that came before the last attempt began. The others get
    /// another attempt, because the store may be healthy by now. Also returns
    /// whether one of the taken callers was closing the map.
    ///
    /// Callers that reload keep waiting for the end of the round: a copy of the store may
    /// answer them. If a batch of unknown outcome `is_kept`, the round does not end.
    pub(crate) fn take_early(&mut self, is_rewound: bool, is_kept: bool) -> (Vec<Waiter>, bool) {
        let closes = self.asked.closes.len();
        let mut early = self.saves.take_early(self.attempts);
        early.append(&mut self.asked.take_early(self.attempts, is_rewound));
        let is_closing = self.asked.closes.len() < closes || !self.round.closes.is_empty();
        let mut reloads = mem::take(&mut self.round.reloads);
        early.append(&mut self.round.take_early(u64::MAX, is_rewound));
        if is_kept {
            early.append(&mut reloads);
        }
        self.round.reloads = reloads;
        (early, is_closing)
    }

    /// Whether a failing store is to be tried again at once.
    pub(crate) fn is_urgent(&self, is_down: bool) -> bool {
        self.retry || is_down && !self.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.saves.is_empty() && self.asked.is_empty() && self.jobs.is_empty()
    }
}

/// The receiving end of an answer.
pub(crate) struct Ticket(Option<oneshot::Receiver<Result<()>>>);

impl Ticket {
    pub(crate) fn new() -> (Answer, Self) {
        let (answer, ticket) = oneshot::channel();
        (answer, Self(Some(ticket)))
    }

    /// A ticket without anything to wait for.
    pub(crate) fn done() -> Self {
        Self(None)
    }

    pub(crate) async fn wait(self) -> Result<()> {
        match self.0 {
            None => Ok(()),
            Some(answer) => answer.await.unwrap_or_else(|_| Err(ended())),
        }
    }

    pub(crate) fn blocking_wait(self) -> Result<()> {
        match self.0 {
            None => Ok(()),
            Some(answer) => answer.blocking_recv().unwrap_or_else(|_| Err(ended())),
        }
    }
}

/// The error if the flusher has ended but the map was not closed.
pub(crate) fn ended() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the runtime on which the map was opened has shut down, and its background task with it; \
         the change is in memory only: open the map again on a running runtime",
    )
}
