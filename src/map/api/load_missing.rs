//! Loads missing entries, single flight.

pub(crate) mod loaders;

use std::sync::Arc;

use self::loaders::NextStep;
use crate::map::{Map, lifetime::Lifetime};

impl<V: Clone, L: Lifetime<V>> Map<V, L> {
    /// Returns a copy of the value at this key. If there is none, runs the loader
    /// and inserts its result.
    ///
    /// Loads are single flight: of all callers that ask for a key at the same time,
    /// one runs its loader, and the others wait for the result. They get the value,
    /// or share the error. A caller that arrives after an error runs its own
    /// loader. If the loading caller is cancelled, or its loader panics, the next
    /// waiting caller runs its own.
    ///
    /// An error is shared among callers whose loaders have the same error type;
    /// callers with another type run their own loaders. A loader that asks for its
    /// own key, directly or through another loader, deadlocks.
    ///
    /// Cancel safe: dropping the future drops the loader, and nothing is inserted.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use persistify::{Memory, PersistentMap};
    /// # let pages: PersistentMap<String> = PersistentMap::builder(Memory::new(), "pages").open().await?;
    /// async fn fetch(path: &str) -> std::io::Result<String> {
    ///     Ok(format!("the page {path}")) // fetched over the network
    /// }
    ///
    /// let page = pages.get_or_try_insert_with("/", || fetch("/")).await?;
    /// assert_eq!(pages.get("/"), Some(page));
    /// # pages.close().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of the loader that ran, in an [`Arc`] because all waiting callers
    /// share it.
    ///
    /// # Panics
    ///
    /// If the map is closed when the value is inserted.
    pub async fn get_or_try_insert_with<F, Fut, E>(
        &self,
        key: impl AsRef<str>,
        loader: F,
    ) -> Result<V, Arc<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
        E: Send + Sync + 'static,
    {
        let key = key.as_ref();
        loop {
            if let Some(value) = self.core.look(key, V::clone) {
                return Ok(value);
            }
            let seat = self.core.loaders.seat(key);
            let turn = seat.turn().await;
            // Inserted by the load, or by another call meanwhile.
            if let Some(value) = self.core.look(key, V::clone) {
                return Ok(value);
            }
            let loading = match turn {
                NextStep::Load(loading) => loading,
                NextStep::Share(error) => return Err(error),
                NextStep::Again => continue,
            };
            let value = match loader().await {
                Ok(value) => value,
                Err(error) => return Err(loading.failed(error)),
            };
            let value = self.alter(key, |entry| entry.get_or_put(|| value));
            loading.loaded();
            return Ok(value);
        }
    }
}
