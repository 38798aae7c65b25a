//! Asking the flusher, from wherever a handle is.

use std::collections::VecDeque;

use super::{
    core::Core,
    errands::Errand,
    lifetime::Lifetime,
    phase,
    requests::{Answer, Requests, Save, Ticket},
};
use crate::error::Error;

impl<V, L: Lifetime<V>> Core<V, L> {
    /// These wait again, before those who came since.
    pub(super) fn give_back(&self, mut saves: VecDeque<Save>) {
        let mut requests = self.requests.lock();
        // Whichever are fewer are moved: there may be many, time and again.
        if saves.len() < requests.saves.len() {
            for save in saves.into_iter().rev() {
                requests.saves.push_front(save);
            }
        } else {
            saves.append(&mut requests.saves);
            requests.saves = saves;
        }
    }

    /// Leaves a request with the flusher and wakes it.
    pub(super) fn ask(&self, leave: impl FnOnce(&mut Requests, Answer)) -> Ticket {
        let (answer, ticket) = Ticket::new();
        let mut requests = self.requests.lock();
        // Under one lock with the flusher's farewell: a request is either
        // refused here, or seen by the flusher, or dropped by its farewell.
        if !requests.unserved {
            leave(&mut requests, answer);
        } else if self.phase.is(phase::CLOSED) {
            // It cannot fail: the ticket is here.
            let _ = answer.send(Err(self.closed()));
        }
        drop(requests);
        self.wake.notify_one();
        ticket
    }

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
