//! Calls of the provider, whatever it does.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::{core::Core, lifetime::Lifetime};
use crate::error::{Error, ErrorKind, Result};

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Calls the provider. One that hangs or panics is one that failed, with an
    /// outcome that is not known: the background task goes on.
    pub(super) async fn call<T, F>(&self, call: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let limit = self.options.commit_timeout;
        // Called in here: what is no `async fn` may panic before it returns a
        // future.
        let answer = async { call().await };
        tokio::select! {
            answer = AssertUnwindSafe(answer).catch_unwind() => answer.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Unavailable, "the provider panicked"))
            }),
            () = self.clock.sleep(limit) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the provider did not answer within {limit:?} (commit_timeout)"),
            )),
        }
        .map_err(|error| error.on_map(&self.name))
    }
}
