//! Answers requests about the map as a whole, and closes it.

use std::{mem, ops::ControlFlow, sync::atomic::Ordering::SeqCst};

use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use super::Flusher;
use crate::{
    error::{Error, ErrorKind, Result},
    map::{
        lifetime::Lifetime,
        phase,
        phase::Closing,
        spans,
        write_behind::waiters::{Waiter, answer_all},
    },
};

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Commits everything that is pending, and resolves a rewind if requested.
    pub(super) async fn requested_round(&mut self) -> Result<()> {
        let how = self.core.requests.lock().round.resolution.take();
        let done = match how {
            Some(how) => self.resolve_asked(how).await,
            None => self.round().await,
        };
        let resolutions = mem::take(&mut self.core.requests.lock().round.resolutions);
        answer_all(resolutions, &done);
        done
    }

    /// Answers requests about the map as a whole. Breaks when the map is closed,
    /// with the callers that closed it, which are still to be answered.
    pub(super) async fn answer(&mut self, done: Result<()>) -> ControlFlow<Vec<Waiter>> {
        self.answer_flushes(&done);
        self.answer_reloads(&done).await;
        if self.core.requests.lock().round.closes.is_empty() {
            return ControlFlow::Continue(());
        }
        let closed = self.close(done).await;
        if self.core.phase.is(phase::CLOSED) {
            return ControlFlow::Break(self.farewell());
        }
        let waiting = mem::take(&mut self.core.requests.lock().round.closes);
        answer_all(waiting, &closed);
        ControlFlow::Continue(())
    }

    async fn answer_reloads(&mut self, done: &Result<()>) {
        if self.core.requests.lock().round.reloads.is_empty() {
            return;
        }
        let reloaded = match done {
            Ok(()) => self.reload().await,
            Err(error) => self.reload_from_copy(error).await,
        };
        let reloads = mem::take(&mut self.core.requests.lock().round.reloads);
        answer_all(reloads, &reloaded);
    }

    fn answer_flushes(&self, done: &Result<()>) {
        let flushes = mem::take(&mut self.core.requests.lock().round.flushes);
        // The error names every refused key, and there may be many: do not create
        // it without callers.
        if flushes.is_empty() {
            return;
        }
        if done.is_ok() && self.core.retried.load(SeqCst) != self.retried {
            // A refused change from before the flush, or a later change in its
            // place, became pending again. It is queued behind the round's
            // watermark, so the flush waits for the next round.
            let mut requests = self.core.requests.lock();
            requests.asked.flushes.extend(flushes);
        } else {
            let answer = done.clone().and_then(|()| self.core.check_refused());
            answer_all(flushes, &answer);
        }
    }

    /// Answers the callers that came while the map was being closed: everything
    /// written before is in the store, otherwise the map would not be closed.
    /// Returns the callers that close it.
    fn farewell(&self) -> Vec<Waiter> {
        let (saves, mut round, mut asked) = {
            let mut requests = self.core.requests.lock();
            requests.unserved = true;
            let saves = mem::take(&mut requests.saves);
            let round = mem::take(&mut requests.round);
            (saves, round, mem::take(&mut requests.asked))
        };
        let mut closes = mem::take(&mut round.closes);
        closes.append(&mut asked.closes);
        saves.answer(&Ok(()));
        self.core.refuse_jobs(&self.core.closed(), |_| true);
        let reloads = mem::take(&mut asked.reloads);
        answer_all(reloads, &Err(self.core.closed()));
        asked.answer(&Ok(()));
        closes
    }

    /// Saves the remaining changes, releases the map in the store and closes it; on
    /// an error, leaves it open.
    async fn close(&mut self, done: Result<()>) -> Result<()> {
        let span = spans::close(&self.core.name, &*self.core.provider);
        let closed = self.try_close(done).instrument(span).await;
        if closed.is_err() {
            self.core.phase.turn(phase::CLOSING, phase::OPEN);
        }
        closed
    }

    async fn try_close(&mut self, mut done: Result<()>) -> Result<()> {
        // If the map was opened and closed again meanwhile, everything is done
        // again.
        while let Some(closing) = self.closing() {
            self.save_the_rest(done).await?;
            done = Ok(());
            if !self.core.phase.is(phase::CLOSING) {
                continue;
            }
            self.core
                .call(|| self.core.provider.release(&self.core.name))
                .await?;
            if self.core.phase.end(closing) {
                return Ok(());
            }
        }
        Err(self.given_up())
    }

    /// The current attempt to close. A caller that failed or gave up has opened the
    /// map again; if others still wait, this closes it again.
    fn closing(&self) -> Option<Closing> {
        let requests = self.core.requests.lock();
        if requests.round.closes.iter().any(|one| !one.has_left()) {
            self.core.phase.turn(phase::OPEN, phase::CLOSING);
        }
        drop(requests);
        self.core.phase.closing()
    }

    async fn save_the_rest(&mut self, mut done: Result<()>) -> Result<()> {
        // After this, writers that saw the map open have released the locks, and
        // later writers are rejected: no other change becomes pending.
        self.core.shards.wait_for_writers();
        while done.is_ok() && self.core.pending() > 0 {
            done = self.round().await;
        }
        done.and_then(|()| self.core.check_refused())
    }

    fn given_up(&self) -> Error {
        let message =
            "the caller that was closing the map gave up; the map is open: close it again";
        Error::new(ErrorKind::Unavailable, message)
            .on_map(&self.core.name)
            .nothing_applied()
    }
}
