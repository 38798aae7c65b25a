//! A batch that lands whole or not at all, on its way to the store: sent until
//! its fate is known, and never taken apart.

use std::{ops::ControlFlow, time::Duration};

use futures_util::future::select_all;

use super::{
    errands::unserved,
    hold::{Failure, Word, Words},
    line::Line,
    retry::Attempts,
};
use crate::{
    batch::{Batch, BatchId, Committed, MapBatch},
    error::{Error, ErrorKind, Result},
};

/// A batch on its way.
pub(super) struct Delivery {
    line: Line,
    batch: Batch,
    /// The flushers that stand still meanwhile.
    words: Vec<Words>,
    /// An attempt may have reached the store, or may yet.
    uncertain: bool,
    /// The store has refused it, and an attempt may yet reach the store.
    refused: Option<Error>,
}

impl Delivery {
    pub(super) fn new(line: Line, batch: Batch, words: Vec<Words>) -> Self {
        Self {
            line,
            batch,
            words,
            uncertain: false,
            refused: None,
        }
    }

    /// Sends it until its fate is known. `unknown` is called if the attempts
    /// are spent before that; from then on it is sent once in a while.
    ///
    /// # Errors
    ///
    /// Why it was not applied, nor will be.
    pub(super) async fn run(self, unknown: impl FnMut(&Error)) -> Result<Committed> {
        let words = self.words.clone();
        let nobody_listens = async {
            for flusher in &words {
                flusher.closed().await;
            }
        };
        // As the maps' own batches it ends with the last of their handles: sent
        // again, it could land after what was saved since by whoever has opened
        // them anew.
        tokio::select! {
            // It may be so from the beginning.
            biased;
            () = nobody_listens => Err(unserved()),
            fate = self.send(unknown) => fate,
        }
    }

    async fn send(mut self, mut unknown: impl FnMut(&Error)) -> Result<Committed> {
        let mut attempts = Attempts::new(&self.line.retry);
        let mut is_late = false;
        loop {
            let error = match self.attempt(attempts.made + 1).await {
                ControlFlow::Break(fate) => return fate,
                ControlFlow::Continue(error) => error,
            };
            let delay = attempts.failed(self.line.clock.now());
            is_late |= delay.is_none() || error.kind() != ErrorKind::Unavailable;
            self.tell(attempts.made, is_late, &error);
            if is_late && !self.uncertain {
                return Err(error);
            }
            if is_late {
                unknown(&error.outcome_unknown());
            }
            self.pause(delay.filter(|_| !is_late)).await;
        }
    }

    /// Waits before the next attempt; without a delay, as before a probe. One of
    /// the flushers may ask for it sooner.
    async fn pause(&self, delay: Option<Duration>) {
        let clock = &self.line.clock;
        let (probe, least) = self.line.retry.probe_delays();
        let delay = delay.unwrap_or(probe);
        let least = least.min(delay);
        clock.sleep(least).await;
        let urged = self.words.iter().map(|words| Box::pin(words.urged()));
        tokio::select! {
            () = clock.sleep(delay.saturating_sub(least)) => {}
            _ = select_all(urged), if !self.words.is_empty() => {}
        }
    }

    /// Breaks with the fate, once it is known.
    async fn attempt(&mut self, number: u32) -> ControlFlow<Result<Committed>, Error> {
        // Also if it was refused before: what was given up then may have landed
        // since, and is answered now.
        match self.line.commit(&self.batch, number).await {
            Ok(committed) => return ControlFlow::Break(Ok(committed)),
            Err(error) if !is_an_answer(&error) => return self.failed(error),
            Err(error) if !self.uncertain => return ControlFlow::Break(Err(error)),
            Err(error) => self.refused = Some(self.refusal_after(error)),
        }
        // It was refused now, so it was not applied before: a repeat would have
        // been answered as such. But an attempt that was given up may still be
        // on its way, and find tomorrow what it expects. Once a later batch of
        // the writer was applied it is superseded, for good.
        match self.line.commit(&self.fence(), number).await {
            Err(error) if !is_an_answer(&error) => self.failed(error),
            Ok(_) | Err(_) => ControlFlow::Break(Err(self.refusal())),
        }
    }

    /// What to tell of it: if it is superseded since it was refused, an attempt at
    /// the fence has landed, and that was no reason to refuse it.
    fn refusal_after(&mut self, error: Error) -> Error {
        let is_fenced = error.kind() == ErrorKind::Superseded;
        let earlier = self.refused.take().filter(|_| is_fenced);
        earlier.unwrap_or(error)
    }

    fn failed(&mut self, error: Error) -> ControlFlow<Result<Committed>, Error> {
        self.uncertain |= error.may_have_applied();
        ControlFlow::Continue(error)
    }

    fn refusal(&mut self) -> Error {
        let unknown = || Error::new(ErrorKind::Refused, "the commit was refused");
        self.refused.take().unwrap_or_else(unknown)
    }

    fn fence(&self) -> Batch {
        let BatchId {
            writer, sequence, ..
        } = self.batch.id;
        let maps = self.batch.maps.iter();
        let maps: Vec<_> = maps
            .map(|part| {
                // A store that has gone back refuses it like the batch itself.
                MapBatch::new(part.map.clone(), Vec::new())
                    .in_incarnation(part.incarnation)
                    .after_acknowledged(part.acknowledged)
            })
            .collect();
        let id = BatchId::new(writer, sequence + 1);
        Batch::new(id, self.batch.after, self.line.clock.now(), maps)
    }

    fn tell(&self, attempt: u32, is_final: bool, error: &Error) {
        for words in &self.words {
            words.tell(Word::Failed(Failure {
                attempt,
                batch: self.batch.clone(),
                is_final,
                error: error.clone(),
            }));
        }
    }
}

/// Whether the store has looked at the batch and will not take it, rather than
/// not being well.
pub(super) fn is_an_answer(error: &Error) -> bool {
    use ErrorKind::{Closed, Unavailable, Unusable};
    !error.may_have_applied() && !matches!(error.kind(), Unavailable | Unusable | Closed)
}
