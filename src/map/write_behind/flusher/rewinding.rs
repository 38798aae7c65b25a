//! A store that has gone back in time: how the flusher detects it, stops, and
//! resumes.
//!
//! Anything that reaches the store detects it: a batch, a conditional save, a
//! transaction, a reload, a probe. From then on the map behaves as if the store
//! were down: it writes nothing and all changes stay pending. Each probe checks
//! whether the store is back at the state it had. To resume otherwise, the map
//! adopts the store's incarnation and no longer claims earlier acknowledgements.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use super::{Flusher, OnExhausted};
use crate::{
    error::Result,
    event::{KeySample, Operation},
    map::{
        api::builder::rewind::Rewind, lifetime::Lifetime, spans,
        write_behind::committer::claims::Claims,
    },
    trace::FLUSH,
};

/// How often in one round a map resolves a rewind by itself before it stops: a
/// store that keeps changing needs manual repair.
pub(super) const MAX_REWINDS: usize = 3;

/// For how long a store certainly remembers a writer; providers remember it for a
/// day.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Resolves a rewind by the policy that the map was opened with.
    ///
    /// # Errors
    ///
    /// The reason why it cannot; every waiting caller has it.
    pub(super) async fn go_on_by_itself(&mut self) -> Result<()> {
        if !self.committer().is_going_on() {
            return Ok(());
        }
        let resolved = self.resolve_rewind(self.core.options.on_rewind).await;
        resolved.inspect_err(|error| self.committer().give_up(error, false))
    }

    /// Resolves a rewind as requested, then commits pending changes. A map whose
    /// store has not gone back is only flushed.
    pub(super) async fn resolve_asked(&mut self, how: Rewind) -> Result<()> {
        if self.writer.rewound {
            self.resolve_rewind(how).await?;
        }
        self.round().await
    }

    /// Decides between memory and the store, and adopts the store's incarnation.
    ///
    /// # Errors
    ///
    /// The provider's error, or that of a record that does not decode. Nothing was
    /// changed.
    async fn resolve_rewind(&mut self, how: Rewind) -> Result<()> {
        let span = spans::load(&self.core.name, &*self.core.provider);
        let store = self.core.read_whole().instrument(span).await?;
        let loaded = store.loaded;
        match how {
            Rewind::SaveAgain => self.core.save_again(store),
            Rewind::TakeStore | Rewind::Stop => self.core.take_store(store).await?,
        }
        // Earlier acknowledgements are settled by the decision and no longer
        // claimed.
        self.writer.claims = Claims::of(loaded.incarnation);
        self.writer.horizon = self.writer.horizon.max(loaded.horizon);
        self.writer.copied_at = None;
        tracing::warn!(target: FLUSH, map = %self.core.name, ?how, incarnation = ?loaded.incarnation, "the store had gone back in time; the map resumes");
        self.committer().store_answered();
        Ok(())
    }

    /// Checks the store when there is nothing to write: whether it is healthy and,
    /// after a rewind, whether it is back at the state it had.
    ///
    /// # Errors
    ///
    /// The store's error; every waiting caller has it.
    pub(super) async fn ping(&mut self) -> Result<()> {
        if self.writer.rewound {
            return self.committer().introduce(|_| {}).await;
        }
        self.committer().begin_attempt();
        let core = self.core.clone();
        let found = core.call(|| core.provider.ping()).await;
        let checked = found.and_then(|found| self.writer.claims.check(found));
        let mut committer = self.committer();
        match checked {
            Ok(()) => committer.store_answered(),
            Err(error) => {
                let error = error.on_map(&core.name);
                committer.report(Operation::Probe, KeySample::default(), &error, false);
                committer.stop(&error, false);
                return Err(error);
            }
        }
        Ok(())
    }

    /// # Errors
    ///
    /// Those of [`reload`](crate::map::Map::reload).
    pub(super) async fn reload(&mut self) -> Result<()> {
        let core = self.core.clone();
        let span = spans::load(&core.name, &*core.provider);
        let (mut loaded, mut load) = core.begin_load().instrument(span.clone()).await?;
        if let Err(error) = self.committer().check_incarnation(loaded.incarnation) {
            if self.writer.down {
                return Err(error);
            }
            // The map resolves the rewind by itself, and that comes first.
            self.round().await?;
            (loaded, load) = core.begin_load().await?;
            self.committer().check_incarnation(loaded.incarnation)?;
        }
        self.take(loaded, load).instrument(span).await
    }

    /// Makes sure that the store remembers this writer.
    pub(super) async fn introduce(&mut self, on_exhausted: OnExhausted<'_>) -> Result<()> {
        let now = self.core.clock.now();
        match self.writer.claims.age(now) {
            Some(age) if age < REMEMBERED => Ok(()),
            _ => self.committer().introduce(on_exhausted).await,
        }
    }
}
