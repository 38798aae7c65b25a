//! Answers to those who asked about the map as a whole, and its end.

use std::{ops::ControlFlow, sync::atomic::Ordering::SeqCst};

use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use super::{Flusher, assembled::answer_all};
use crate::{
    error::{Error, ErrorKind, Result},
    map::{
        lifetime::Lifetime,
        phase::{self, Closing},
        requests::{Answer, Asked, send},
        spans,
    },
};

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Answers those who asked about the map as a whole. Breaks when the map is
    /// closed, with those who are still to be told so.
    pub(super) async fn answer(
        &mut self,
        mut asked: Asked,
        done: Result<()>,
        was_down: bool,
    ) -> ControlFlow<Vec<Answer>> {
        if done.is_err() && !was_down {
            // Those who came while the attempts were made are told as well. Who
            // came during a probe has another one: the store may be well by now.
            let late = std::mem::take(&mut self.core.requests.lock().asked);
            asked.flushes.extend(late.flushes);
            asked.reloads.extend(late.reloads);
            asked.closes.extend(late.closes);
            // That is not done by what has failed.
            let mut requests = self.core.requests.lock();
            requests.asked.resolutions.extend(late.resolutions);
        }
        self.answer_flushes(std::mem::take(&mut asked.flushes), &done);
        if !asked.reloads.is_empty() {
            let reloaded = match &done {
                Ok(()) => self.reload().await,
                Err(error) => Err(error.clone()),
            };
            send(asked.reloads, &reloaded);
        }
        if asked.closes.is_empty() {
            return ControlFlow::Continue(());
        }
        let closed = self.close(done, &asked.closes).await;
        if self.core.phase.is(phase::CLOSED) {
            asked.closes.append(&mut self.farewell());
            return ControlFlow::Break(asked.closes);
        }
        send(asked.closes, &closed);
        ControlFlow::Continue(())
    }

    fn answer_flushes(&self, flushes: Vec<Answer>, done: &Result<()>) {
        // All that is refused is named, and that may be much: not if nobody asks.
        if flushes.is_empty() {
            return;
        }
        if done.is_ok() && self.core.retried.load(SeqCst) != self.retried {
            // Something older than the flush was refused, and waits again, or a
            // later change in its place: behind where the round has ended.
            let mut requests = self.core.requests.lock();
            requests.asked.flushes.extend(flushes);
        } else {
            let answer = done.clone().and_then(|()| self.core.nothing_refused());
            send(flushes, &answer);
        }
    }

    /// Answers those who came while the map was being closed: all that was
    /// written before is in the store, or it would not be closed. Hands out those
    /// who close it as well.
    fn farewell(&self) -> Vec<Answer> {
        let (saves, asked) = {
            let mut requests = self.core.requests.lock();
            requests.unserved = true;
            let saves = std::mem::take(&mut requests.saves);
            (saves, std::mem::take(&mut requests.asked))
        };
        answer_all(saves.into(), &Ok(()));
        self.core.refuse_errands(&self.core.closed(), |_| true);
        send(asked.flushes, &Ok(()));
        send(asked.reloads, &Err(self.core.closed()));
        let resolutions = asked.resolutions.into_iter();
        send(resolutions.map(|ask| ask.answer).collect(), &Ok(()));
        asked.closes
    }

    /// Saves the rest, lets go of the store, and turns the map to closed; or
    /// leaves it open and says what could not be saved.
    async fn close(&mut self, done: Result<()>, waiting: &[Answer]) -> Result<()> {
        let span = spans::close(&self.core.name, &*self.core.provider);
        let closed = self.try_close(done, waiting).instrument(span).await;
        if closed.is_err() {
            self.core.phase.turn(phase::CLOSING, phase::OPEN);
        }
        closed
    }

    async fn try_close(&mut self, mut done: Result<()>, waiting: &[Answer]) -> Result<()> {
        // If it was opened again meanwhile, and closed anew, all of it is done
        // anew.
        while let Some(closing) = self.closing_for(waiting) {
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

    /// The closing that is under way. One who failed or gave up has opened the
    /// map again: for those who still wait it closes anew.
    fn closing_for(&self, waiting: &[Answer]) -> Option<Closing> {
        if waiting.iter().any(|answer| !answer.is_closed()) {
            self.core.phase.turn(phase::OPEN, phase::CLOSING);
        }
        self.core.phase.closing()
    }

    async fn save_the_rest(&mut self, mut done: Result<()>) -> Result<()> {
        // Whoever wrote before the phase turned has left by now; whoever comes
        // later is turned away. What is pending from here on is all there is.
        self.core.shards.wait_for_writers();
        while done.is_ok() && self.core.pending() > 0 {
            done = self.round().await;
        }
        done.and_then(|()| self.core.nothing_refused())
            .map_err(|error| self.core.not_closed(&error))
    }

    fn given_up(&self) -> Error {
        let message = "whoever closed the map gave up waiting; it is open: close it again";
        Error::new(ErrorKind::Unavailable, message)
            .on_map(&self.core.name)
            .nothing_applied()
    }
}
