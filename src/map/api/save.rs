//! Writes that wait until they are in the store.

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
/// Saves share commits: many at once cost little more than one.
///
/// Nothing happens before the first poll; after it, dropping the future loses
/// the answer only. The errors of all of them:
///
/// - `Refused`: the store (or the codec) will never take this key's change, or
///   the later one that replaced it. It is in memory only.
/// - `Unavailable`, `Unusable`: the attempts are spent. The change is in memory,
///   still pending, and may yet be saved. (Beyond
///   [`max_pending`](crate::Builder::max_pending): nothing was changed.)
/// - `Rewound`: the store has gone back in time, and the map has stopped; see
///   [`Rewind`]. The change is in memory, still pending.
/// - `Conflict`, only if the map [looks for conflicts](crate::Builder::conflicts):
///   another process has changed the entry, and what is stored won. The map holds
///   that now; [`Error::found`] has it.
/// - `Closed`: the map is closed and nothing was changed; or the runtime has
///   ended, and the change is in memory only.
impl<V, L> Map<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// [Inserts](Self::insert), and waits until that or a later change of the
    /// key is committed.
    ///
    /// # Errors
    ///
    /// Those of all [saves](Map#saves).
    pub async fn insert_and_save(&self, key: impl AsRef<str>, value: V) -> Result<Option<V>> {
        self.put_and_save(key.as_ref(), value, None).await
    }

    /// [Inserts if nothing is there](Self::try_insert), and waits until that
    /// or a later change of the key is committed. If something is there, it
    /// waits for nothing.
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
        let (done, ticket) = self.core.alter(key.as_ref(), |spot| {
            let done = spot.put_if_absent(value);
            let ticket = done
                .as_ref()
                .map_or_else(|_| Ticket::done(), |()| spot.wait());
            (done, ticket)
        })?;
        ticket.wait().await?;
        Ok(done)
    }

    /// [Updates](Self::update), and waits until that or a later change of the
    /// key is committed. If there is no entry, there may still be a removal to
    /// wait for.
    ///
    /// # Errors
    ///
    /// Those of all [saves](Map#saves).
    pub async fn update_and_save<R>(
        &self,
        key: impl AsRef<str>,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<Option<R>> {
        self.alter_and_save(key.as_ref(), |spot| spot.update(change))
            .await
    }

    /// [Removes](Self::remove), and waits until that or a later change of the
    /// key is committed. If there is no entry, it waits for a removal of the key that
    /// is pending, and behind a commit of the key that may have been saved.
    ///
    /// # Errors
    ///
    /// Those of all [saves](Map#saves).
    pub async fn remove_and_save(&self, key: impl AsRef<str>) -> Result<Option<V>> {
        self.alter_and_save(key.as_ref(), |spot| spot.remove())
            .await
    }

    /// [Clears](Self::clear), and waits until that is committed.
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
        self.alter_and_save(key, |spot| spot.put(value, ttl)).await
    }

    pub(crate) async fn update_keeping_expiry_and_save<R>(
        &self,
        key: &str,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<Option<R>> {
        self.alter_and_save(key, |spot| spot.update_keeping_expiry(change))
            .await
    }

    async fn alter_and_save<R>(
        &self,
        key: &str,
        change: impl FnOnce(&mut LockedEntry<'_, V, L>) -> R,
    ) -> Result<R> {
        self.check_pending()?;
        let (done, ticket) = self.core.alter(key, |spot| {
            let done = change(spot);
            (done, spot.wait())
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

    /// Waits until everything that was pending at the call is committed.
    ///
    /// What is written later may be committed along with it, or not. With
    /// nothing pending it returns without asking the store.
    ///
    /// # Errors
    ///
    /// What the last attempt failed with; everything stays pending. `Refused`,
    /// naming the keys, while refused changes are left; everything else is
    /// committed.
    pub async fn flush(&self) -> Result<()> {
        ReentrancyGuard::check();
        self.core.check_not_closed()?;
        self.core.ask(Request::Flush).wait().await
    }

    /// Takes the store's state for every entry without a pending change; those
    /// with one are committed first. It reads the whole map; meanwhile nothing
    /// is committed.
    ///
    /// # Errors
    ///
    /// What the provider errs with: entries that were read before the error are as
    /// in the store, the others as they were. `Corrupt`, naming the keys, if
    /// records do not decode (and unreadable ones are not allowed): these entries
    /// are as they were, the others as in the store.
    pub async fn reload(&self) -> Result<()> {
        ReentrancyGuard::check();
        self.core.check_not_closed()?;
        self.core.ask(Request::Reload).wait().await
    }

    /// Goes on after the store has gone back in time ([health](Self::health) is
    /// [`Rewound`](crate::Health::Rewound)): takes over the store as it is, saves
    /// memory again or takes what the store holds, and commits what is pending
    /// then. A map whose store has not gone back is only flushed.
    ///
    /// It reads the whole map from the store; meanwhile nothing is committed.
    ///
    /// # Errors
    ///
    /// `Invalid` for [`Rewind::Stop`], which decides nothing. What the provider
    /// errs with, or `Corrupt` if a record does not decode (and unreadable ones
    /// are not allowed): then nothing was decided, and the map stays as it was.
    /// Otherwise as [`flush`](Self::flush).
    pub async fn resolve_rewind(&self, how: Rewind) -> Result<()> {
        ReentrancyGuard::check();
        self.core.check_not_closed()?;
        if how == Rewind::Stop {
            let message = "Rewind::Stop decides nothing; say SaveAgain or TakeStore";
            return Err(Error::new(ErrorKind::Invalid, message).on_map(&self.core.name));
        }
        self.core.ask(Request::ResolveRewind(how)).wait().await
    }

    /// Saves what is pending, lets go of the store and ends the background task.
    ///
    /// From the call on, saves return `Closed` and other writes panic; reads go
    /// on. Closing a closed map does nothing.
    ///
    /// # Errors
    ///
    /// What the last attempt failed with, naming the unsaved keys; `Refused`,
    /// naming the keys, if there are refused changes. The map is then open as
    /// before, and can be closed again.
    pub async fn close(&self) -> Result<()> {
        let closed = self.begin_close().wait().await;
        self.end_close(closed)
    }

    /// Like [`close`](Self::close), but gives up after that time.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close). If the time has passed, the error names the
    /// unsaved keys. Its kind is that of the last attempt to save them (with the
    /// attempt's error as its source), or `Unavailable` if none has failed. The
    /// map is then open as before.
    pub async fn close_within(&self, limit: Duration) -> Result<()> {
        let ticket = self.begin_close();
        tokio::select! {
            biased;
            closed = ticket.wait() => self.end_close(closed),
            Some(()) = self.sleep(limit) => self.give_up_closing(limit),
        }
    }

    /// Sleeps; `None` at once if the runtime has ended, or when it does.
    pub(crate) async fn sleep(&self, limit: Duration) -> Option<()> {
        let clock = self.core.clock.clone();
        self.on_own_runtime(async move { clock.sleep(limit).await })
            .await
    }

    /// Works on the map's own runtime: the caller may be on none. `None` if that
    /// has ended.
    pub(crate) async fn on_own_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        // Dropped, it drops what it works on.
        let mut works = JoinSet::new();
        works.spawn_on(work, &self.runtime);
        works.join_next().await?.ok()
    }

    fn give_up_closing(&self, limit: Duration) -> Result<()> {
        // Whoever turns the phase first decides: the flusher, who is done, or
        // this one, who is done waiting. If it is open again already, closing
        // has failed, or somebody else gave up.
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

    /// Like [`close`](Self::close), for a plain `main` that has kept its
    /// multi-thread runtime alive.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close); `Invalid` on a thread of a runtime, or if the
    /// map was opened on a current-thread runtime, where waiting would hang.
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
        // Another call may have closed it meanwhile.
        let Some(error) = closed.err().filter(|_| !self.core.phase.is(phase::CLOSED)) else {
            return Ok(());
        };
        if self.core.requests.lock().unserved {
            // The task that should have opened it again is gone.
            self.core.phase.turn(phase::CLOSING, phase::OPEN);
        }
        Err(self.core.not_closed(&error))
    }
}
