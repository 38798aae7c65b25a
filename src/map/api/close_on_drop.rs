//! A guard that closes a map at the end of a scope.

pub(crate) mod polling;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};

use self::polling::is_polling;
use crate::{
    error::{Error, ErrorKind, Result},
    map::{Map, lifetime::Lifetime},
    name::MapName,
    trace::MAP,
};

/// Extra time for the map to return its own timeout error, which states the
/// cause.
const GRACE: Duration = Duration::from_millis(500);

impl<V, L> Map<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Returns a guard that closes the map when dropped: at the end of its scope,
    /// after an early `?`, or while a panic unwinds. Dropping it blocks the thread
    /// until the map is closed, for `limit` at most.
    ///
    /// Prefer [`close`](Self::close) where it can be called: it returns the error
    /// that names the unsaved keys. The guard logs it as a `tracing` error; if no
    /// subscriber was ever set, it prints to stderr. If the map is closed already,
    /// the guard does nothing.
    ///
    /// Works in plain threads, in `spawn_blocking` and in async code on a
    /// multi-thread runtime. **It does not work in async code on the current-thread
    /// runtime that the map was opened on**, nor in a `LocalSet`: the guard would
    /// block the thread that runs the flusher. There it saves nothing, reports the
    /// failure at once, and pending changes are lost. Nor does it work after the
    /// map's runtime has shut down, or while nothing drives that runtime.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use persistify::{Memory, PersistentMap};
    /// # fn count_words(_: &PersistentMap<u32>) -> persistify::Result<()> { Ok(()) }
    /// #[tokio::main]
    /// async fn main() -> persistify::Result<()> {
    ///     let words: PersistentMap<u32> = PersistentMap::builder(Memory::new(), "words").open().await?;
    ///     let _closes = words.close_on_drop(Duration::from_secs(10));
    ///     count_words(&words)?; // after an error, changes made so far are still saved
    ///     words.close().await
    /// }
    /// ```
    pub fn close_on_drop(&self, limit: Duration) -> CloseOnDrop {
        let map = self.clone();
        CloseOnDrop {
            name: self.core.name.clone(),
            close: Some(Box::new(move || map.close_from_here(limit))),
        }
    }

    /// Closes the map from any kind of thread.
    ///
    /// # Errors
    ///
    /// Those of [`close_within`](Self::close_within); `Invalid` if the map's
    /// runtime cannot make progress while this thread waits.
    fn close_from_here(self, limit: Duration) -> Result<()> {
        if !is_polling() {
            return self.close_elsewhere(limit);
        }
        let here = Handle::current();
        if here.runtime_flavor() == RuntimeFlavor::CurrentThread {
            return if here.id() == self.runtime.id() {
                Err(self.not_from_here())
            } else {
                self.close_elsewhere(limit)
            };
        }
        let not_from_here = self.not_from_here();
        // `block_in_place` moves the other tasks of this thread, perhaps the map's
        // among them, to another thread. It panics where it cannot, and a panic in
        // a drop could abort the process.
        let closed = AssertUnwindSafe(|| block_in_place(|| self.close_elsewhere(limit)));
        catch_unwind(closed).unwrap_or(Err(not_from_here))
    }

    /// Closes the map on its own runtime; blocks this thread meanwhile.
    fn close_elsewhere(self, limit: Duration) -> Result<()> {
        let (reply, answer) = channel();
        let (core, runtime) = (self.core.clone(), self.runtime.clone());
        runtime.spawn(async move {
            // If the receiver is gone, its timeout was reported.
            let _ = reply.send(self.close_within(limit).await);
        });
        let cause = match answer.recv_timeout(limit.saturating_add(GRACE)) {
            Ok(closed) => return closed,
            Err(RecvTimeoutError::Timeout) => Error::new(
                ErrorKind::Unavailable,
                format!("the runtime of the map did not answer within {limit:?}"),
            ),
            Err(RecvTimeoutError::Disconnected) => {
                Error::new(ErrorKind::Closed, "the runtime of the map has shut down")
            }
        };
        Err(core.not_closed(&cause))
    }

    fn not_from_here(&self) -> Error {
        let message = "close_on_drop cannot close a map from the only thread of its runtime (a \
                       current-thread runtime, or a LocalSet); call `close().await` there";
        self.core
            .not_closed(&Error::new(ErrorKind::Invalid, message))
    }
}

/// Closes a map when it is dropped; see [`Map::close_on_drop`].
#[must_use = "the map is closed when this guard is dropped: `let _closes = ..`"]
pub struct CloseOnDrop {
    name: MapName,
    close: Option<Box<dyn FnOnce() -> Result<()> + Send>>,
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let Some(Err(error)) = self.close.take().map(|close| close()) else {
            return;
        };
        let cause = std::error::Error::source(&error);
        let cause = cause.map(ToString::to_string).unwrap_or_default();
        tracing::error!(target: MAP, map = %self.name, error = %error.logged(), "a map could not be closed at the end of its scope");
        if !tracing::dispatcher::has_been_set() {
            eprintln!("persistify: {error}: {cause}");
        }
    }
}

impl fmt::Debug for CloseOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloseOnDrop")
            .field("map", &self.name)
            .finish_non_exhaustive()
    }
}
