//! What is asked of the flusher, and by whom.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::oneshot;

use super::{errands::Errand, rewind::Rewind};
use crate::error::{Error, ErrorKind, Result};

/// Where an answer goes. Whoever waits may have stopped waiting.
pub(super) type Answer = oneshot::Sender<Result<()>>;

/// So few saves may be there that nobody waits for.
const FEW_SAVES: usize = 1_024;

/// Someone who waits for a change to be committed.
pub(super) struct Save {
    pub(super) what: Awaited,
    pub(super) answer: Answer,
    /// How many attempts had begun when it came.
    came: u64,
}

impl Save {
    pub(super) fn new(what: Awaited, answer: Answer) -> Self {
        let came = 0;
        Self { what, answer, came }
    }

    /// The key, if it waits for one.
    pub(super) fn key(&self) -> Option<&Arc<str>> {
        match &self.what {
            Awaited::Key(key) => Some(key),
            Awaited::Clear => None,
        }
    }
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
    /// The store is to be tried again at once, if it is failing.
    pub(super) retry: bool,
    /// How many attempts have begun.
    attempts: u64,
    pub(super) saves: VecDeque<Save>,
    /// How many of the saves somebody waited for when that was last looked at.
    awaited: usize,
    pub(super) asked: Asked,
    pub(super) errands: VecDeque<Errand>,
}

/// What is asked about the map as a whole.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) flushes: Vec<Answer>,
    pub(super) reloads: Vec<Answer>,
    pub(super) closes: Vec<Answer>,
    pub(super) resolutions: Vec<Resolution>,
}

/// How the map is to go on after its store has gone back in time.
pub(super) struct Resolution {
    pub(super) how: Rewind,
    pub(super) answer: Answer,
}

impl Asked {
    pub(super) fn is_empty(&self) -> bool {
        self.flushes.is_empty()
            && self.reloads.is_empty()
            && self.closes.is_empty()
            && self.resolutions.is_empty()
    }
}

impl Requests {
    /// Somebody waits. Those who have stopped waiting are forgotten once there
    /// are twice as many as before: while the store is down, whoever saves and
    /// gives up time and again would else fill the memory.
    pub(super) fn await_save(&mut self, mut save: Save) {
        save.came = self.attempts;
        if self.saves.len() >= FEW_SAVES.max(2 * self.awaited) {
            self.saves.retain(|save| !save.answer.is_closed());
            self.awaited = self.saves.len();
        }
        self.saves.push_back(save);
    }

    /// An attempt begins, at the request of all who are here by now.
    pub(super) fn begin_attempt(&mut self) {
        self.attempts += 1;
        self.retry = false;
    }

    /// The saves that came before the last attempt began. The others have
    /// another one: the store may be well by now.
    pub(super) fn take_early_saves(&mut self) -> Vec<Save> {
        let all = std::mem::take(&mut self.saves).into_iter();
        let is_early = |save: &Save| save.came < self.attempts;
        let (early, late) = all.partition::<VecDeque<_>, _>(is_early);
        self.saves = late;
        early.into()
    }

    /// Whether a store that is failing is to be tried again at once.
    pub(super) fn is_urgent(&self, is_down: bool) -> bool {
        self.retry || is_down && !self.is_empty()
    }

    /// Whether nobody waits for anything.
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
            Some(answer) => answer.await.unwrap_or_else(|_| Err(ended())),
        }
    }

    pub(super) fn blocking_wait(self) -> Result<()> {
        match self.0 {
            None => Ok(()),
            Some(answer) => answer.blocking_recv().unwrap_or_else(|_| Err(ended())),
        }
    }
}

/// The flusher is gone without a close.
pub(super) fn ended() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the runtime on which the map was opened has ended, and its background task with it; \
         the change is in memory only: open the map again on a running runtime",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each save of a store that was down stayed until it was up, although
    /// whoever had asked for it had long given up.
    #[test]
    fn saves_that_nobody_waits_for_do_not_pile_up() {
        let mut requests = Requests::default();
        let mut held = Vec::new();
        let mut save = |n: usize| {
            let (answer, ticket) = Ticket::new();
            let what = Awaited::Key(n.to_string().into());
            requests.await_save(Save::new(what, answer));
            assert!(requests.saves.len() <= 4_000);
            ticket
        };
        for n in 0..1_000_000 {
            let ticket = save(n);
            held.extend((n % 1_000 == 0).then_some(ticket));
        }
        let awaited = requests.saves.iter().filter(|s| !s.answer.is_closed());
        assert_eq!(awaited.count(), held.len());
    }
}
