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
    batch::{BatchId, MapBatch},
    error::{Error, ErrorKind, Result},
    event::{KeySample, Operation},
    incarnation::Incarnation,
    map::{
        claims::Claims,
        hold::Applied,
        lifetime::Lifetime,
        requests::{Resolution, send},
        rewind::Rewind,
        spans,
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
    /// Looks at the incarnation that the store has answered with.
    ///
    /// # Errors
    ///
    /// `Rewound` if the map knew another one; then everybody who waits was told.
    pub(super) fn check_incarnation(&mut self, found: Option<Incarnation>) -> Result<()> {
        let checked = self.claims.check(found);
        checked.map_err(|error| {
            let error = error.on_map(&self.core.name);
            self.report(Operation::Probe, KeySample::default(), &error, true);
            self.stop_or_note(&error);
            error
        })
    }

    /// The attempts are over. A map that goes on by itself once its store has
    /// gone back in time does so with the next round: then those who wait go on
    /// waiting.
    pub(super) fn stop_or_note(&mut self, error: &Error) {
        self.rewound |= error.kind() == ErrorKind::Rewound;
        if error.kind() == ErrorKind::Rewound && self.is_going_on() {
            self.start_attempts();
            self.core.age.round_fails(self.unresolved.is_some());
            self.tell_health(error);
        } else {
            self.give_up(error);
        }
    }

    /// Whether the map is about to go on by itself with a store that has gone back.
    pub(super) fn is_going_on(&self) -> bool {
        self.rewound && self.core.options.on_rewind != Rewind::Stop
    }

    /// Goes on as the map was opened to.
    ///
    /// # Errors
    ///
    /// Why it cannot. Then everybody who waits was told.
    pub(super) async fn go_on_by_itself(&mut self) -> Result<()> {
        if !self.is_going_on() {
            return Ok(());
        }
        let resolved = self.resolve_rewind(self.core.options.on_rewind).await;
        resolved.inspect_err(|error| self.give_up(error))
    }

    /// Does what is asked of a map whose store has gone back in time, and
    /// commits what is pending then.
    pub(super) async fn resolve_asked(&mut self, asked: Vec<Resolution>) -> Result<()> {
        let Some(first) = asked.first() else {
            return Ok(());
        };
        let resolved = if self.rewound {
            self.resolve_rewind(first.how).await
        } else {
            Ok(())
        };
        let done = match resolved {
            Ok(()) => self.round().await,
            Err(error) => Err(error),
        };
        send(asked.into_iter().map(|ask| ask.answer).collect(), &done);
        done
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
        // Whatever of it has landed was loaded just now. Its keys wait again, and
        // the next batch of this writer fences it.
        if let Some(mut unresolved) = self.unresolved.take() {
            unresolved.uncertain = true;
            self.put_back(unresolved);
        }
        match how {
            Rewind::SaveAgain => self.core.save_again(store),
            Rewind::TakeStore | Rewind::Stop => self.core.take_store(store).await?,
        }
        // What was acknowledged before is decided upon: it is claimed no more.
        self.claims = Claims::of(loaded.incarnation);
        self.horizon = self.horizon.max(loaded.horizon);
        tracing::warn!(target: FLUSH, map = %self.core.name, ?how, incarnation = ?loaded.incarnation, "the store had gone back in time; the map goes on");
        self.is_well();
        Ok(())
    }

    /// With nothing to write, whether the store is well has to be asked.
    pub(super) async fn ping(&mut self) -> Result<()> {
        self.begin_attempt();
        let asked = if self.rewound {
            self.probe_claims().await
        } else {
            let found = self.core.call(|| self.core.provider.ping()).await;
            found.and_then(|found| self.claims.check(found))
        };
        if let Err(error) = asked {
            let error = error.on_map(&self.core.name);
            self.report(Operation::Probe, KeySample::default(), &error, false);
            self.stop_or_note(&error);
            return Err(error);
        }
        self.is_well();
        Ok(())
    }

    /// Finds out whether a store that had gone back in time is as it was, with a
    /// batch that changes nothing.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub(super) async fn probe_claims(&mut self) -> Result<()> {
        let nothing = MapBatch::new(self.core.name.clone(), Vec::new());
        let batch = self.batch(nothing);
        let span = spans::commit(&batch, &*self.core.provider, self.attempts.made + 1);
        let commit = self.core.call(|| self.core.provider.commit(&batch));
        let committed = commit.instrument(span).await?;
        self.horizon = self.horizon.max(committed.revision.unwrap_or_default());
        self.claims.acknowledge(batch.id, self.core.clock.now());
        self.claims.check(committed.incarnation)
    }

    /// # Errors
    ///
    /// As [`reload`](crate::map::Map::reload).
    pub(super) async fn reload(&mut self) -> Result<()> {
        let core = self.core.clone();
        let span = spans::load(&core.name, &*core.provider);
        let (mut loaded, mut load) = core.begin_load().instrument(span.clone()).await?;
        if let Err(error) = self.check_incarnation(loaded.incarnation) {
            if self.down {
                return Err(error);
            }
            // The map goes on by itself, and that comes first.
            self.round().await?;
            (loaded, load) = core.begin_load().await?;
            self.check_incarnation(loaded.incarnation)?;
        }
        core.take_all(load, None).instrument(span).await?;
        self.horizon = self.horizon.max(loaded.horizon);
        Ok(())
    }

    /// Sees to it that the store knows this writer.
    pub(super) async fn introduce(&mut self) -> Result<()> {
        let now = self.core.clock.now();
        if self.claims.age(now).is_some_and(|age| age < REMEMBERED) {
            return Ok(());
        }
        let nothing = self.changes(Vec::new());
        let committed = self.deliver(nothing, &mut []).await?;
        let revision = committed.revision;
        self.applied(Applied {
            revision,
            changes: Vec::new(),
        });
        self.check_incarnation(committed.incarnation)
    }

    /// The store has acknowledged that batch, of this writer or of another map's.
    ///
    /// # Errors
    ///
    /// As [`check_incarnation`](Self::check_incarnation).
    pub(super) fn acknowledge(
        &mut self,
        id: BatchId,
        incarnation: Option<Incarnation>,
    ) -> Result<()> {
        if id.writer == self.writer {
            self.claims.acknowledge(id, self.core.clock.now());
        }
        self.check_incarnation(incarnation)
    }
}
