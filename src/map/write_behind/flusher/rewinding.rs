//! A store that has gone back in time: how the flusher notices, stops, and goes
//! on.
//!
//! Noticed is it by whatever reaches the store: a batch, a conditional save, a
//! transaction, a reload, a probe. From then on the map is down like one whose
//! store is away, so nothing is written and everything stays pending; each probe
//! finds out whether the store is as it was. To go on otherwise, the map takes
//! over the incarnation of the store, and from then on claims nothing that was
//! acknowledged before.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use super::Flusher;
use crate::{
    error::Result,
    event::{KeySample, Operation},
    map::{
        api::builder::rewind::Rewind, lifetime::Lifetime, spans,
        write_behind::committer::claims::Claims,
    },
    trace::FLUSH,
};

/// How often in one round a map goes on by itself, before it stops all the same:
/// a store that changes time and again needs a person.
pub(super) const MAX_REWINDS: usize = 3;

/// How long a store surely remembers a writer; they do so for a day.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Goes on as the map was opened to.
    ///
    /// # Errors
    ///
    /// Why it cannot. Then everybody who waits was told.
    pub(super) async fn go_on_by_itself(&mut self) -> Result<()> {
        if !self.committer().is_going_on() {
            return Ok(());
        }
        let resolved = self.resolve_rewind(self.core.options.on_rewind).await;
        resolved.inspect_err(|error| self.committer().give_up(error, false))
    }

    /// Does what was decided about a store that has gone back in time, and commits what is
    /// pending then. A map whose store has not gone back is only flushed.
    pub(super) async fn resolve_asked(&mut self, how: Rewind) -> Result<()> {
        if self.writer.rewound {
            self.resolve_rewind(how).await?;
        }
        self.round().await
    }

    /// Decides between memory and the store, and takes over the incarnation of
    /// the store.
    ///
    /// # Errors
    ///
    /// What the provider errs with, or that a record does not decode. Nothing was
    /// changed.
    async fn resolve_rewind(&mut self, how: Rewind) -> Result<()> {
        let span = spans::load(&self.core.name, &*self.core.provider);
        let store = self.core.read_whole().instrument(span).await?;
        let loaded = store.loaded;
        match how {
            Rewind::SaveAgain => self.core.save_again(store),
            Rewind::TakeStore | Rewind::Stop => self.core.take_store(store).await?,
        }
        // What was acknowledged before is decided upon: it is claimed no more.
        self.writer.claims = Claims::of(loaded.incarnation);
        self.writer.horizon = self.writer.horizon.max(loaded.horizon);
        tracing::warn!(target: FLUSH, map = %self.core.name, ?how, incarnation = ?loaded.incarnation, "the store had gone back in time; the map goes on");
        self.committer().is_well();
        Ok(())
    }

    /// With nothing to write, the store has to be asked whether it is well; and whether it is
    /// as it was, if it had gone back in time.
    ///
    /// # Errors
    ///
    /// Why it is not; every caller that waits was told.
    pub(super) async fn ping(&mut self) -> Result<()> {
        if self.writer.rewound {
            return self.committer().introduce().await;
        }
        self.committer().begin_attempt();
        let core = self.core.clone();
        let found = core.call(|| core.provider.ping()).await;
        let checked = found.and_then(|found| self.writer.claims.check(found));
        let mut committer = self.committer();
        match checked {
            Ok(()) => committer.is_well(),
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
    /// As [`reload`](crate::map::Map::reload).
    pub(super) async fn reload(&mut self) -> Result<()> {
        let core = self.core.clone();
        let span = spans::load(&core.name, &*core.provider);
        let (mut loaded, mut load) = core.begin_load().instrument(span.clone()).await?;
        if let Err(error) = self.committer().check_incarnation(loaded.incarnation) {
            if self.writer.down {
                return Err(error);
            }
            // The map goes on by itself, and that comes first.
            self.round().await?;
            (loaded, load) = core.begin_load().await?;
            self.committer().check_incarnation(loaded.incarnation)?;
        }
        core.take_all(load, None).instrument(span).await?;
        self.writer.horizon = self.writer.horizon.max(loaded.horizon);
        Ok(())
    }

    /// Sees to it that the store remembers this writer.
    pub(super) async fn introduce(&mut self) -> Result<()> {
        let now = self.core.clock.now();
        match self.writer.claims.age(now) {
            Some(age) if age < REMEMBERED => Ok(()),
            _ => self.committer().introduce().await,
        }
    }
}
