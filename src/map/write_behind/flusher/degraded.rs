//! Reloads from a copy of the store while it is down, and from the store once it is back.

use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use super::Flusher;
use crate::{
    error::{Error, ErrorKind, Result},
    load::Load,
    map::{
        lifetime::Lifetime, load::loading::Loaded, spans,
        write_behind::committer::degraded::store_is_down,
    },
    trace::LOAD,
};

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Replaces clean entries by those of a load.
    ///
    /// # Errors
    ///
    /// Those of [`reload`](crate::map::Map::reload); `Unavailable` if the load comes from a copy
    /// that may lack commits that the map has seen: memory never goes back to older values.
    pub(super) async fn take(&mut self, loaded: Loaded, load: Load<'_>) -> Result<()> {
        if loaded.copied_at.is_some() && loaded.horizon < self.writer.horizon {
            let more = "the copy is older than the entries in memory, so nothing was reloaded";
            return Err(store_is_down().and_say(more).on_map(&self.core.name));
        }
        self.core.take_all(load, None).await?;
        self.writer.horizon = self.writer.horizon.max(loaded.horizon);
        self.committer().loaded_from(loaded.copied_at);
        Ok(())
    }

    /// Reloads from a copy of the store, which is down. Changes stay pending.
    ///
    /// # Errors
    ///
    /// The given error of the store if there is no copy; otherwise those of
    /// [`take`](Self::take).
    pub(super) async fn reload_from_copy(&mut self, down: &Error) -> Result<()> {
        if down.kind() != ErrorKind::Unavailable {
            return Err(down.clone());
        }
        let core = self.core.clone();
        let span = spans::load(&core.name, &*core.provider);
        match core.begin_load().instrument(span).await {
            Ok((loaded, load)) if loaded.copied_at.is_some() => self.take(loaded, load).await,
            // The store is back just now; but it does not have what is pending.
            Ok(_) | Err(_) => Err(down.clone()),
        }
    }

    /// Reloads a map with the entries of a copy, once the store has answered: it may have commits
    /// that the copy lacks.
    pub(super) async fn leave_copy(&mut self) {
        let is_closing = !self.core.requests.lock().round.closes.is_empty();
        if !self.writer.must_leave_copy() || is_closing {
            return;
        }
        match self.reload().await {
            Ok(()) => {}
            // All other entries were reloaded, and another reload would not change that.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(target: LOAD, map = %self.core.name, error = %error.logged(), "the store is back, but some of its records are unreadable");
                self.committer().loaded_from(None);
            }
            Err(error) => self.committer().stay_degraded(&error),
        }
    }
}
