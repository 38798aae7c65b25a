//! The one background task of a map: it writes what changed, in batches.

use std::{sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    assembly::{Assembled, answer_all},
    core::{Core, phase},
    lifetime::Lifetime,
    requests::Asked,
};
use crate::{
    batch::{Batch, BatchId, Committed, MapBatch, WriterId},
    error::{Error, ErrorKind, Result},
    event::{Health, KeySample, Operation, SaveFailure},
    name::MapName,
    record::Revision,
};

/// The task's own state. There is one commit in flight at a time, so nothing
/// here is shared.
pub(super) struct Flusher<V, L: Lifetime<V>> {
    pub(super) core: Arc<Core<V, L>>,
    writer: WriterId,
    sequence: u64,
    /// The highest revision seen.
    horizon: Revision,
    /// A batch whose fate is not known: it is sent again as it is.
    unresolved: Option<Assembled>,
    /// Parts of a batch that was refused without a word on which key it was.
    pub(super) parts: Vec<Vec<Arc<str>>>,
    attempt: u32,
    delays: Box<dyn Iterator<Item = Duration> + Send + Sync>,
    down: bool,
}

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    pub(super) fn new(core: Arc<Core<V, L>>, horizon: Revision) -> Self {
        Self {
            writer: WriterId::random(),
            sequence: 0,
            horizon,
            unresolved: None,
            parts: Vec::new(),
            attempt: 0,
            delays: Box::new(core.options.retry.delays()),
            down: false,
            core,
        }
    }

    /// Works until the map is closed or its last handle is dropped.
    pub(super) async fn run(mut self) {
        let core = self.core.clone();
        tokio::select! {
            () = core.stop.notified() => {}
            () = self.work() => {}
        }
    }

    async fn work(&mut self) {
        loop {
            self.idle().await;
            let asked = std::mem::take(&mut self.core.requests.lock().asked);
            let done = self.round().await;
            if self.answer(asked, done).await.is_break() {
                return;
            }
        }
    }

    /// Waits until there is something to do.
    async fn idle(&self) {
        if self.down {
            // A store that is down is asked once in a while, whatever happens.
            let pause = self.core.options.retry.probe_delay();
            return self.core.clock.sleep(pause).await;
        }
        while !self.is_due() {
            let woken = self.core.wake.notified();
            match self.deadline() {
                None => woken.await,
                Some(deadline) => tokio::select! {
                    () = woken => {}
                    () = self.core.clock.sleep_until(deadline) => return,
                },
            }
        }
    }

    fn is_due(&self) -> bool {
        self.core.pending.len() >= self.core.triggers.load().size
            || !self.core.requests.lock().is_empty()
    }

    /// When the oldest change has waited long enough.
    fn deadline(&self) -> Option<std::time::SystemTime> {
        let waits = self.core.pending.len() > 0 || self.core.must_clear();
        let interval = self.core.triggers.load().interval;
        waits.then(|| self.core.age.queued_since() + interval)
    }

    /// Commits all that is pending now, in as many batches as it takes.
    ///
    /// # Errors
    ///
    /// What the last attempt failed with. By then everything is queued again
    /// (or kept as unresolved), and everybody who waits was told.
    async fn round(&mut self) -> Result<()> {
        let began = self.core.clock.now();
        let mut until = self.core.pending.until_now();
        if self.core.pending() > 0 {
            self.core.age.round_begins();
        }
        if self.down && self.unresolved.is_none() && self.core.pending() == 0 {
            self.ping().await?;
        }
        let mut first = true;
        loop {
            let unresolved = self.unresolved.take();
            let next = unresolved.or_else(|| self.assemble(&mut until, first));
            let Some(assembled) = next else {
                break;
            };
            first = false;
            match self.commit(&assembled).await {
                Ok(committed) => self.settle(assembled, committed),
                Err((operation, error)) => {
                    self.fail(assembled, operation, error).await?;
                    until.rewind();
                }
            }
            // A provider that never waits must not keep the thread to itself.
            tokio::task::yield_now().await;
        }
        self.core.age.round_ends(began);
        Ok(())
    }

    /// With nothing to write, whether the store is well has to be asked.
    async fn ping(&mut self) -> Result<()> {
        match self.core.call(self.core.provider.ping()).await {
            Ok(()) => self.is_well(),
            Err(error) => {
                self.report(Operation::Probe, KeySample::default(), &error, true);
                self.give_up(&error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// A batch of this writer under a number of its own.
    pub(super) fn batch(&mut self, part: MapBatch) -> Batch {
        self.sequence += 1;
        let id = BatchId::new(self.writer, self.sequence);
        Batch::new(id, self.horizon, self.core.clock.now(), vec![part])
    }

    async fn commit(&mut self, assembled: &Assembled) -> Result<Committed, (Operation, Error)> {
        // What cannot be decoded is copied away before its key is overwritten:
        // committed first, so that a crash between the two leaves both.
        self.set_aside(assembled)
            .await
            .map_err(|error| (Operation::SetAside, error))?;
        let provider = self.core.provider.clone();
        let committed = self.core.call(provider.commit(&assembled.batch)).await;
        let operation = if self.down {
            Operation::Probe
        } else {
            Operation::Commit
        };
        committed.map_err(|error| (operation, error))
    }

    async fn set_aside(&mut self, assembled: &Assembled) -> Result<()> {
        let records = self.core.unreadable_under(assembled);
        if records.is_empty() {
            return Ok(());
        }
        let map: MapName = self.core.name.nested(super::unreadable::ASIDE)?;
        let changes = records.iter().map(super::unreadable::copy_of).collect();
        let mut batch = self.batch(MapBatch::new(map, changes));
        // A writer of its own each time: a number of ours must stay free for
        // the batch that waits, which may be older than this one.
        batch.id = BatchId::new(WriterId::random(), 1);
        self.core.call(self.core.provider.commit(&batch)).await?;
        self.core.was_set_aside(&records);
        Ok(())
    }

    fn settle(&mut self, assembled: Assembled, committed: Committed) {
        self.horizon = self.horizon.max(committed.revision.unwrap_or_default());
        self.core.settle_all(&assembled, committed);
        assembled.answer(&Ok(()));
        self.is_well();
    }

    fn is_well(&mut self) {
        self.start_attempts();
        if std::mem::take(&mut self.down) {
            self.core.health.send_replace(Health::Healthy);
        }
    }

    fn start_attempts(&mut self) {
        self.attempt = 0;
        self.delays = Box::new(self.core.options.retry.delays());
    }

    /// Sorts a failed attempt by what is to be done about it, and waits before
    /// the next one.
    ///
    /// # Errors
    ///
    /// The error itself, if there is to be no other attempt in this round.
    async fn fail(
        &mut self,
        mut assembled: Assembled,
        operation: Operation,
        error: Error,
    ) -> Result<()> {
        self.attempt += 1;
        assembled.uncertain |= error.may_have_applied() && operation != Operation::SetAside;
        if error.kind() == ErrorKind::Refused && !assembled.is_bare_clear() {
            self.isolate(assembled, operation, &error);
            return Ok(());
        }
        let is_final = self.down
            || error.kind() != ErrorKind::Unavailable
            || self.attempt >= self.core.options.retry.attempts();
        self.report(operation, assembled.sample(), &error, is_final);
        if assembled.uncertain && error.kind() != ErrorKind::Superseded {
            // It may have landed, or may land yet: sent again as it is, it
            // lands once at the most, and its fate becomes known.
            self.unresolved = Some(assembled);
        } else {
            self.put_back(assembled);
        }
        if is_final {
            self.give_up(&error);
            return Err(error);
        }
        let delay = self.delays.next().unwrap_or_default();
        self.core.clock.sleep(delay).await;
        Ok(())
    }

    /// Everything of this batch waits again, the values to be read anew.
    fn put_back(&mut self, assembled: Assembled) {
        // From the last to the first, each in front of the others: so the
        // order in which they came is kept.
        for change in assembled.changes().iter().rev() {
            self.core.requeue(&change.key, assembled.uncertain);
        }
        self.core.give_back(assembled.saves);
    }

    /// Gets the keys that the store refuses out of the others' way: those that
    /// it names, or else by halving the batch until one is left.
    fn isolate(&mut self, assembled: Assembled, operation: Operation, error: &Error) {
        let keys: Vec<_> = assembled.changes().iter().map(|c| c.key.clone()).collect();
        let named: Vec<_> = error
            .keys()
            .iter()
            .filter(|k| keys.contains(k))
            .cloned()
            .collect();
        let refused = if keys.len() == 1 { keys.clone() } else { named };
        self.report(
            operation,
            KeySample::of(refused_or(&refused, &keys)),
            error,
            !refused.is_empty(),
        );
        for key in &refused {
            self.core.refuse(key, &error.clone().on_keys([key.clone()]));
        }
        if refused.is_empty() {
            let (first, second) = keys.split_at(keys.len() / 2);
            self.parts.extend([second.to_vec(), first.to_vec()]);
        }
        self.put_back(assembled);
        self.start_attempts();
    }

    /// The attempts are spent. Everything stays pending; everybody who waits
    /// is told.
    fn give_up(&mut self, error: &Error) {
        self.start_attempts();
        self.core.age.round_fails();
        let since = match &*self.core.health.borrow() {
            Health::Down { since, .. } => *since,
            Health::Healthy => self.core.clock.now(),
        };
        self.down = true;
        let error = error.clone();
        let mut waiting = std::mem::take(&mut self.core.requests.lock().saves);
        if let Some(unresolved) = &mut self.unresolved {
            waiting.append(&mut unresolved.saves);
        }
        answer_all(waiting, &Err(error.clone()));
        self.core.health.send_replace(Health::Down { since, error });
    }

    pub(super) fn report(
        &self,
        operation: Operation,
        keys: KeySample,
        error: &Error,
        is_final: bool,
    ) {
        use std::sync::atomic::Ordering::Relaxed;
        self.core.tally.failed_attempts.fetch_add(1, Relaxed);
        let (attempt, max_attempts) = match operation {
            Operation::Probe | Operation::Encode => (1, 1),
            Operation::Commit | Operation::SetAside => {
                (self.attempt, self.core.options.retry.attempts())
            }
        };
        tracing::warn!(map = %self.core.name, ?operation, attempt, is_final, %error, "a save failed");
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

    /// Answers those who asked about the map as a whole.
    async fn answer(&mut self, mut asked: Asked, done: Result<()>) -> std::ops::ControlFlow<()> {
        if done.is_err() {
            // Whoever came while the attempts were made is told as well.
            let late = std::mem::take(&mut self.core.requests.lock().asked);
            asked.flushes.extend(late.flushes);
            asked.reloads.extend(late.reloads);
            asked.closes.extend(late.closes);
        }
        let flushed = done.clone().and_then(|()| self.core.nothing_refused());
        send(asked.flushes, &flushed);
        if !asked.reloads.is_empty() {
            let reloaded = match &done {
                Ok(()) => self.reload().await,
                Err(error) => Err(error.clone()),
            };
            send(asked.reloads, &reloaded);
        }
        if asked.closes.is_empty() {
            return std::ops::ControlFlow::Continue(());
        }
        let closed = self.close(done).await;
        let is_closed = self.core.phase.load(std::sync::atomic::Ordering::Acquire) == phase::CLOSED;
        send(asked.closes, &closed);
        if is_closed {
            return std::ops::ControlFlow::Break(());
        }
        std::ops::ControlFlow::Continue(())
    }

    async fn reload(&mut self) -> Result<()> {
        let horizon = self.core.reload().await?;
        self.horizon = self.horizon.max(horizon);
        Ok(())
    }

    /// Saves the rest, lets go of the store, and turns the map to closed; or
    /// leaves it open and says what could not be saved.
    async fn close(&mut self, done: Result<()>) -> Result<()> {
        let closed = self.try_close(done).await;
        if closed.is_err() {
            self.core.turn(phase::CLOSING, phase::OPEN);
        }
        closed
    }

    async fn try_close(&mut self, mut done: Result<()>) -> Result<()> {
        // Whoever wrote before the phase turned has left by now; whoever comes
        // later is turned away. What is pending from here on is all there is.
        if !self.core.is(phase::CLOSING) {
            return Err(self.given_up());
        }
        self.core.shards.wait_for_writers();
        while done.is_ok() && self.core.pending() > 0 {
            done = self.round().await;
        }
        done.and_then(|()| self.core.nothing_refused())
            .map_err(|error| self.core.not_closed(&error))?;
        self.core
            .call(self.core.provider.release(&self.core.name))
            .await?;
        if self.core.turn(phase::CLOSING, phase::CLOSED) {
            return Ok(());
        }
        Err(self.given_up())
    }

    fn given_up(&self) -> Error {
        let message = "whoever closed the map gave up waiting; it is open: close it again";
        Error::new(ErrorKind::Unavailable, message)
            .on_map(&self.core.name)
            .nothing_applied()
    }
}

fn refused_or<'a>(refused: &'a [Arc<str>], all: &'a [Arc<str>]) -> &'a [Arc<str>] {
    if refused.is_empty() { all } else { refused }
}

fn send(answers: Vec<super::requests::Answer>, result: &Result<()>) {
    for answer in answers {
        // Whoever stopped waiting needs no answer.
        let _ = answer.send(result.clone());
    }
}

impl<V, L: Lifetime<V>> Drop for Flusher<V, L> {
    /// However the task ends (a runtime that shuts down included), nobody is
    /// left waiting for it.
    fn drop(&mut self) {
        let mut requests = self.core.requests.lock();
        requests.unserved = true;
        requests.saves.clear();
        requests.asked = Asked::default();
    }
}
