//! The first load of a map, with retries while the store is down.

use serde::de::DeserializeOwned;

use super::loading::Loaded;
use crate::{
    error::{ErrorKind, Result},
    map::{
        api::builder::options::Progress, core::Core, lifetime::Lifetime,
        write_behind::committer::retry::Attempts,
    },
};

impl<V: DeserializeOwned, L: Lifetime<V>> Core<V, L> {
    /// Fills the empty map from the store. Retries while the store is unavailable,
    /// for up to `open_timeout`.
    ///
    /// # Errors
    ///
    /// The provider's error; `Corrupt` if a record does not decode.
    pub(crate) async fn load_in_time(&self, progress: Option<&Progress>) -> Result<Loaded> {
        let limit = self.options.open_timeout;
        let policy = self.options.retry.within(limit);
        let mut attempts = Attempts::new(&policy).since(self.clock.now());
        let mut loaded = self.load(progress).await;
        while let Err(error) = loaded {
            let delay = attempts.failed(self.clock.now());
            if error.kind() != ErrorKind::Unavailable || limit.is_zero() {
                return Err(error);
            }
            let Some(delay) = delay else {
                let made = attempts.made;
                let more = format!("attempt {made} was the last within {limit:?} (open_timeout)");
                return Err(error.and_say(&more));
            };
            self.clock.sleep(delay).await;
            loaded = self.load_again(progress).await;
        }
        loaded
    }

    /// Loads as a reload does: the previous attempt may have failed halfway, and
    /// records that it loaded may have been removed from the store since.
    async fn load_again(&self, progress: Option<&Progress>) -> Result<Loaded> {
        let (loaded, load) = self.begin_load().await?;
        self.take_all(load, progress).await?;
        if L::EXPIRES {
            self.all_loaded();
        }
        Ok(loaded)
    }
}
