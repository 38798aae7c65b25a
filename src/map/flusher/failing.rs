//! What becomes of a batch that was not committed.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Flusher,
    assembled::{Assembled, answer_all},
    parts::Part,
};
use crate::{
    error::{Error, ErrorKind, Result},
    event::{Health, KeySample, Operation, SaveFailure},
    map::lifetime::Lifetime,
    trace::FLUSH,
};

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Sorts a failed attempt by what is to be done about it, and waits before
    /// the next one.
    ///
    /// # Errors
    ///
    /// The error itself, if there is to be no other attempt in this round.
    pub(super) async fn fail(
        &mut self,
        mut assembled: Assembled,
        operation: Operation,
        error: Error,
    ) -> Result<()> {
        let delay = self.attempts.failed(self.core.clock.now());
        assembled.uncertain |= error.may_have_applied() && operation != Operation::SetAside;
        if is_of_a_key(&assembled, operation, &error) {
            self.isolate(assembled, operation, &error);
            return Ok(());
        }
        let is_to_pass = !self.down && error.kind() == ErrorKind::Unavailable;
        let delay = delay.filter(|_| is_to_pass);
        let is_final = delay.is_none() && !self.down;
        self.report(operation, assembled.sample(), &error, is_final);
        // A store that has gone back does not have it, and never will: an attempt
        // that is still on its way claims what the store has lost.
        let is_known = matches!(error.kind(), ErrorKind::Superseded | ErrorKind::Rewound);
        if assembled.uncertain && !is_known {
            // It may have landed, or may land yet: sent again as it is, it
            // lands once at the most, and its fate becomes known.
            self.unresolved = Some(assembled);
        } else {
            self.put_back(assembled);
        }
        let Some(delay) = delay else {
            self.stop_or_note(&error);
            return Err(error);
        };
        self.pause(delay).await;
        Ok(())
    }

    /// Everything of this batch waits again, the values to be read anew.
    pub(super) fn put_back(&mut self, assembled: Assembled) {
        if assembled.uncertain && self.core.asks_conditions() {
            self.doubts.add(assembled.changes());
        }
        // From the last to the first, each in front of the others: so the
        // order in which they came is kept.
        for change in assembled.changes().iter().rev() {
            self.core.requeue(&change.key, assembled.uncertain);
        }
        self.core.give_back(assembled.saves.into());
    }

    /// Gets the keys that the store refuses out of the others' way: those that
    /// it names, or else by halving the batch until one is left.
    fn isolate(&mut self, mut assembled: Assembled, operation: Operation, error: &Error) {
        let keys: Vec<_> = assembled.changes().iter().map(|c| c.key.clone()).collect();
        let refused = if keys.len() == 1 {
            keys.clone()
        } else {
            named_among(&keys, error)
        };
        self.report(
            operation,
            KeySample::of(refused_or(&refused, &keys)),
            error,
            !refused.is_empty(),
        );
        // Without its keys, of which there may be as many, it is cheap to clone.
        let unnamed = error.clone().on_keys([]);
        for key in &refused {
            let error = unnamed.clone().on_keys([key.clone()]);
            self.core.refuse(key, &error, assembled.uncertain);
        }
        if refused.is_empty() {
            let half = keys.len() / 2;
            let saves = assembled.take_saves_of_keys();
            let (first, second) = Part { keys, saves }.split_at(half);
            self.parts.extend([second, first]);
        }
        self.put_back(assembled);
        // The store has looked at it, so it is up.
        self.is_well();
    }

    /// The attempts are spent. Everything stays pending; everybody who waits
    /// is told.
    pub(super) fn give_up(&mut self, error: &Error) {
        self.start_attempts();
        self.core.age.round_fails(self.unresolved.is_some());
        self.down = true;
        self.rewound |= error.kind() == ErrorKind::Rewound;
        // Before the waiters hear: a caller whose save failed finds the health
        // that says why.
        self.tell_health(error);
        let mut waiting = self.core.requests.lock().take_early_saves();
        if let Some(unresolved) = &mut self.unresolved {
            waiting.append(&mut unresolved.saves);
        }
        for part in &mut self.parts {
            waiting.append(&mut part.saves);
        }
        answer_all(waiting, &Err(error.clone()));
        self.core.refuse_errands(error, |_| true);
    }

    pub(super) fn tell_health(&self, error: &Error) {
        let now = self.core.clock.now();
        let fail = |health: &mut Health| health.fail(now, error.clone());
        self.core.health.send_if_modified(fail);
    }

    pub(super) fn report(
        &self,
        operation: Operation,
        keys: KeySample,
        error: &Error,
        is_final: bool,
    ) {
        self.core.tally.failed_attempts.fetch_add(1, Relaxed);
        let (attempt, max_attempts) = match operation {
            Operation::Probe | Operation::Encode | Operation::Merge => (1, 1),
            Operation::Commit | Operation::SetAside => {
                let max = self.core.options.retry.attempts();
                (self.attempts.made, max)
            }
        };
        if operation == Operation::Probe {
            // That the store is down was said.
            tracing::debug!(target: FLUSH, map = %self.core.name, error = %error.logged(), "the store is still down");
        } else {
            tracing::warn!(target: FLUSH, map = %self.core.name, ?operation, attempt, is_final, error = %error.logged(), "a save failed");
            tracing::trace!(target: FLUSH, map = %self.core.name, ?error, "the save failed with this");
        }
        if !matches!(operation, Operation::Encode | Operation::Merge) {
            *self.core.trouble.lock() = Some(error.clone());
        }
        // Without a subscriber there is nobody to tell.
        let _ = self.core.failures.send(SaveFailure {
            map: self.core.name.clone(),
            operation,
            attempt,
            max_attempts,
            is_final,
            keys,
            error: error.clone(),
        });
    }
}

/// Whether some change of the batch is to blame, and the others can go without
/// it. They cannot go before a clear, and that not before what it would destroy
/// was set aside.
fn is_of_a_key(assembled: &Assembled, operation: Operation, error: &Error) -> bool {
    let waits = operation == Operation::SetAside && assembled.clears();
    let is_known = !error.may_have_applied();
    error.kind() == ErrorKind::Refused && is_known && !waits && !assembled.is_bare_clear()
}

/// The keys of the batch that the error names.
fn named_among(keys: &[Arc<str>], error: &Error) -> Vec<Arc<str>> {
    let keys: HashSet<_> = keys.iter().collect();
    let named = error.keys().iter().filter(|key| keys.contains(key));
    named.cloned().collect()
}

fn refused_or<'a>(refused: &'a [Arc<str>], all: &'a [Arc<str>]) -> &'a [Arc<str>] {
    if refused.is_empty() { all } else { refused }
}
