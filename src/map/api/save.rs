//! Writes that wait until they are committed.

use std::{future::Future, time::Duration};

use super::{builder::rewind::Rewind, entry::occupied::Occupied};
use crate::{
    error::{Error, ErrorKind, Result},
    map::{
        Map,
        lifetime::Lifetime,
        phase,
        table::{locked_entry::LockedEntry, reentrancy::ReentrancyGuard},
        write_behind::{
            requests::{Request, Ticket},
            waiters::Awaited,
        },
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::JoinSet;

/// # Saves
///
/// Concurrent saves share commits (group commit), so many concurrent saves cost
/// little more than one.
///
/// Nothing happens before the first poll. Once polled, dropping the future cancels
/// the wait, not the write. All saves return these errors:
///
/// - `Refused`: the store (or the codec) will never accept this change of the key,
///   or the later one that replaced it. The change is in memory only.
/// - `Unavailable`, `Unusable`: all attempts have failed. The change is in memory,
///   still pending, and may be saved later. (If
///   [`max_pending`](crate::Builder::max_pending) is exceeded, nothing was
///   changed.)
/// - `Rewound`: the store has gone back in time, and the map has stopped; see
///   [`Rewind`]. The change is in memory, still pending.
/// - `Conflict`, only if the map [detects conflicts](crate::Builder::conflicts):
///   another process has changed the entry, and the stored value won. The map now
///   holds that value; [`Error::found`] returns it.
/// - `Closed`: the map is closed and nothing was changed; or the runtime has shut
///   down, and the change is in memory only.
impl<V, L> Map<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// [Inserts](Self::insert), and waits until this change, or a later one of the
    /// key, is committed.
    ///
    /// # Errors
    ///
    /// Those of all [saves](Map#saves).
    pub async fn insert_and_save(&self, key: impl AsRef<str>, value: V) -> Result<Option<V>> {
        self.put_and_save(key.as_ref(), value, None).await
    }

    /// [Inserts if the key has no entry](Self::try_insert), and waits until this
    /// change, or a later one of the key, is committed. If the key has an entry, it
    /// does not wait.
    ///
    /// # Errors
    ///
    /// Those of all [saves](Map#saves).
    pub async fn try_insert_and_save(
        &self,
        key: impl AsRef<str>,
        value: V,
    ) -> Result<Result<(), Occupied<V>>> {
        self.check_pending()?;
        let (done, ticket) = self.core.alter(key.as_ref(), |entry| {
            let done = entry.put_if_absent(value);
            let ticket = done
                .as_ref()
                .map_or_else(|_| Ticket::done(), |()| entry.wait());
            (done, ticket)
        })?;
        ticket.wait().await?;
        Ok(done)
    }

    /// [Updates](Self::update), and waits until this change, or a later one of the
    /// key, is committed. If there is no entry, it still waits for a pending
    /// removal of the key.
    ///
    /// # Errors
    ///
    /// Those of all [saves](Map#saves).
    pub async fn update_and_save<R>(
        &self,
        key: impl AsRef<str>,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<Option<R>> {
        self.alter_and_save(key.as_ref(), |entry| entry.update(change))
            .await
    }

    /// [Removes](Self::remove), and waits until this change, or a later one of the
    /// key, is committed. If there is no entry, it still waits for a pending
    /// removal of the key, and for a commit of the key whose outcome is unknown.
    ///
    /// # Errors
    ///
    /// Those of all [saves](Map#saves).
    pub async fn remove_and_save(&self, key: impl AsRef<str>) -> Result<Option<V>> {
        self.alter_and_save(key.as_ref(), |entry| entry.remove())
            .await
    }

    /// [Clears](Self::clear), and waits until the clear is committed.
    ///
    /// # Errors
    ///
    /// Those of all [saves](Map#saves).
    pub async fn clear_and_save(&self) -> Result<()> {
        self.check_pending()?;
        let mut ticket = Ticket::done();
        self.core
            .clear(|| ticket = self.core.await_save(Awaited::Clear))?;
        ticket.wait().await
    }

    pub(crate) async fn put_and_save(
        &self,
        key: &str,
        value: V,
        ttl: Option<Duration>,
    ) -> Result<Option<V>> {
        self.alter_and_save(key, |entry| entry.put(value, ttl))
            .await
    }

    pub(crate) async fn update_keeping_expiry_and_save<R>(
        &self,
        key: &str,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<Option<R>> {
        self.alter_and_save(key, |entry| entry.update_keeping_expiry(change))
            .await
    }

    async fn alter_and_save<R>(
        &self,
        key: &str,
        change: impl FnOnce(&mut LockedEntry<'_, V, L>) -> R,
    ) -> Result<R> {
        self.check_pending()?;
        let (done, ticket) = self.core.alter(key, |entry| {
            let done = change(entry);
            (done, entry.wait())
        })?;
        ticket.wait().await?;
        Ok(done)
    }

    fn check_pending(&self) -> Result<()> {
        self.core.check_open()?;
        match self.core.options.max_pending {
            Some(max) if self.core.pending() >= max => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{max} keys are pending already (max_pending); nothing was changed: save again later"),
            )
            .on_map(&self.core.name)
            .nothing_applied()),
            _ => Ok(()),
        }
    }

    /// Commits everything that was pending at the call, and waits for it.
    ///
    /// Later writes may be committed along with it. With nothing pending it returns
    /// without a call to the store.
    ///
    /// # Errors
    ///
    /// The error of the last attempt; everything stays pending. `Refused`, naming
    /// the keys, while there are refused changes; everything else is committed.
    pub async fn flush(&self) -> Result<()> {
        ReentrancyGuard::check();
        self.core.check_not_closed()?;
        self.core.ask(Request::Flush).wait().await
    }

    /// Replaces every entry without a pending change by its stored state. Pending
    /// changes are committed first. Reads the whole map; nothing is committed
    /// meanwhile.
    ///
    /// If the store is down and a layer answers from a copy, such as the standby of a
    /// [`Failover`](crate::Failover), pending changes stay pending, and the other entries
    /// are those of the copy; the map is then [`Degraded`](crate::Health::Degraded).
    ///
    /// # Errors
    ///
    /// The provider's error: entries loaded before the failure have their stored
    /// state; the others are unchanged. `Corrupt`, naming the keys, if records do not
    /// decode (and unreadable records are not allowed): these entries are unchanged;
    /// the others have their stored state.
    pub async fn reload(&self) -> Result<()> {
        ReentrancyGuard::check();
        self.core.check_not_closed()?;
        self.core.ask(Request::Reload).wait().await
    }

    /// Resumes after the store has gone back in time ([health](Self::health) is
    /// [`Rewound`](crate::Health::Rewound)): accepts the store as it is, then saves
    /// memory again or takes the stored entries, and commits pending changes. On a
    /// map whose store has not gone back, it only flushes.
    ///
    /// Reads the whole map from the store; nothing is committed meanwhile.
    ///
    /// # Errors
    ///
    /// `Invalid` for [`Rewind::Stop`], which is not a decision. The provider's
    /// error, or `Corrupt` if a record does not decode (and unreadable records are
    /// not allowed): then nothing was decided, and the map stays as it was.
    /// Otherwise those of [`flush`](Self::flush).
    pub async fn resolve_rewind(&self, how: Rewind) -> Result<()> {
        ReentrancyGuard::check();
        self.core.check_not_closed()?;
        if how == Rewind::Stop {
            let message = "Rewind::Stop is not a decision; use SaveAgain or TakeStore";
            return Err(Error::new(ErrorKind::Invalid, message).on_map(&self.core.name));
        }
        self.core.ask(Request::ResolveRewind(how)).wait().await
    }

    /// Saves all pending changes, releases the map in the store and ends the
    /// background task.
    ///
    /// From the call on, saves return `Closed` and other writes panic; reads keep
    /// working. Closing a closed map does nothing.
    ///
    /// # Errors
    ///
    /// The error of the last attempt, naming the unsaved keys; `Refused`, naming
    /// the keys, if there are refused changes. The map is then open as before, and
    /// can be closed again.
    pub async fn close(&self) -> Result<()> {
        let closed = self.begin_close().wait().await;
        self.end_close(closed)
    }

    /// Like [`close`](Self::close), but gives up after `limit`.
    ///
    /// # Errors
    ///
    /// Those of [`close`](Self::close). If the time is up, the error names the
    /// unsaved keys. Its kind is that of the last attempt to save them (which is
    /// its source), or `Unavailable` if no attempt has failed. The map is then open
    /// as before.
    pub async fn close_within(&self, limit: Duration) -> Result<()> {
        let ticket = self.begin_close();
        tokio::select! {
            biased;
            closed = ticket.wait() => self.end_close(closed),
            Some(()) = self.sleep(limit) => self.give_up_closing(limit),
        }
    }

    /// Sleeps on the map's runtime. `None` if the runtime has shut down, or when it
    /// does.
    pub(crate) async fn sleep(&self, limit: Duration) -> Option<()> {
        let clock = self.core.clock.clone();
        self.on_own_runtime(async move { clock.sleep(limit).await })
            .await
    }

    /// Runs a future on the map's own runtime, since the caller may be on none.
    /// `None` if that runtime has shut down.
    pub(crate) async fn on_own_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        // Dropping the set aborts its task.
        let mut works = JoinSet::new();
        works.spawn_on(work, &self.runtime);
        works.join_next().await?.ok()
    }

    fn give_up_closing(&self, limit: Duration) -> Result<()> {
        // The first to change the phase wins: the flusher, which has saved
        // everything, or this call, which stops waiting. If the phase is already
        // open again, closing has failed, or another call gave up.
        self.core.phase.turn(phase::CLOSING, phase::OPEN);
        if self.core.phase.is(phase::CLOSED) {
            return Ok(());
        }
        let late = format!("closing took longer than {limit:?}");
        let late = match self.core.trouble.lock().clone() {
            Some(cause) => Error::new(cause.kind(), late).with_source(cause),
            None => Error::new(ErrorKind::Unavailable, late),
        };
        Err(self.core.not_closed(&late))
    }

    /// Like [`close`](Self::close), for a synchronous `main` that keeps its
    /// multi-thread runtime alive. Blocks the thread.
    ///
    /// # Errors
    ///
    /// Those of [`close`](Self::close); `Invalid` on a thread of a runtime, or if
    /// the map was opened on a current-thread runtime, where waiting would hang.
    pub fn blocking_close(&self) -> Result<()> {
        self.check_blocking()?;
        let closed = self.begin_close().blocking_wait();
        self.end_close(closed)
    }

    fn begin_close(&self) -> Ticket {
        ReentrancyGuard::check();
        self.core.phase.turn(phase::OPEN, phase::CLOSING);
        if self.core.phase.is(phase::CLOSED) {
            return Ticket::done();
        }
        self.core.ask(Request::Close)
    }

    fn end_close(&self, closed: Result<()>) -> Result<()> {
        // Another call may have closed the map meanwhile.
        let Some(error) = closed.err().filter(|_| !self.core.phase.is(phase::CLOSED)) else {
            return Ok(());
        };
        if self.core.requests.lock().unserved {
            // The task that would have reopened the map has ended.
            self.core.phase.turn(phase::CLOSING, phase::OPEN);
        }
        Err(self.core.not_closed(&error))
    }
}
