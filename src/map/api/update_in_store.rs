//! Read-modify-write against the store, with optimistic retries.

use std::{convert::Infallible, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    batch::Expect,
    error::{Error, ErrorKind, Result},
    load::Wanted,
    map::{
        Map,
        core::Core,
        lifetime::Lifetime,
        table::{entry::Slot, reentrancy::ReentrancyGuard},
    },
    record::{Record, Revision},
};

/// The value to start from.
struct Base<V> {
    value: V,
    revision: Revision,
    /// The entry's own time to live.
    ttl: Option<Duration>,
}

impl<V, L> Map<V, L>
where
    V: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Changes the stored value at this key and saves it; returns the new value, or
    /// `None` if the store has no such entry.
    ///
    /// [`update_and_save`](Self::update_and_save) changes the value in memory. This
    /// method cooperates with other processes: the new value is saved only if the
    /// key has not been written since it was read. Otherwise `change` is called
    /// again with the newly stored value, as often and as fast as
    /// [`retry_conflicts`](crate::Builder::retry_conflicts) allows. Concurrent
    /// increments by many processes all count.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistify::Result<()> {
    /// # use persistify::{Expect, Memory, PersistentMap};
    /// # let orders: PersistentMap<u64> = PersistentMap::builder(Memory::new(), "orders").open().await?;
    /// orders.save_if("last", 0, Expect::Absent).await?;
    /// assert_eq!(orders.update_in_store("last", |n| n + 1).await?, Some(1));
    /// # orders.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of all [conditional saves](Map#conditional-saves). `Conflict` if
    /// another writer won every attempt: nothing was written; call it again.
    /// `Corrupt` if the stored value does not decode.
    pub async fn update_in_store(
        &self,
        key: impl AsRef<str>,
        mut change: impl FnMut(V) -> V,
    ) -> Result<Option<V>> {
        self.upsert_in_store(key, |value| value.map(&mut change))
            .await
    }

    /// Like [`update_in_store`](Self::update_in_store), but can also create the
    /// entry (the closure gets `None`) and remove it (the closure returns `None`).
    /// Returns the value that the store holds afterwards.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistify::Result<()> {
    /// # use persistify::{Memory, PersistentMap};
    /// # let orders: PersistentMap<u64> = PersistentMap::builder(Memory::new(), "orders").open().await?;
    /// let next = |last: Option<u64>| Some(last.unwrap_or(0) + 1);
    /// assert_eq!(orders.upsert_in_store("last", next).await?, Some(1));
    /// assert_eq!(orders.upsert_in_store("last", next).await?, Some(2));
    /// # orders.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`update_in_store`](Self::update_in_store).
    pub async fn upsert_in_store(
        &self,
        key: impl AsRef<str>,
        mut change: impl FnMut(Option<V>) -> Option<V>,
    ) -> Result<Option<V>> {
        let change = |value: &mut Option<V>| {
            *value = change(value.take());
            Ok::<_, Infallible>(value.clone())
        };
        match self.try_update_in_store(key, change).await? {
            Ok(new) => Ok(new),
            Err(never) => match never {},
        }
    }

    /// Like [`upsert_in_store`](Self::upsert_in_store), with a closure that changes
    /// the value in place, can abort, and returns a result.
    ///
    /// The closure gets the stored value, or `None`. If it returns `Ok`, the value
    /// it leaves is saved (`None` removes the entry) and its result is returned. If
    /// it returns `Err`, nothing is written.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistify::Result<()> {
    /// # use persistify::{Memory, PersistentMap};
    /// # let seats: PersistentMap<u32> = PersistentMap::builder(Memory::new(), "seats").open().await?;
    /// # seats.insert("stalls", 1);
    /// let take = |left: &mut Option<u32>| match left {
    ///     Some(n) if *n > 0 => {
    ///         *n -= 1;
    ///         Ok(*n)
    ///     }
    ///     _ => Err("sold out"),
    /// };
    /// assert_eq!(seats.try_update_in_store("stalls", take).await?, Ok(0));
    /// assert_eq!(seats.try_update_in_store("stalls", take).await?, Err("sold out"));
    /// # seats.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`update_in_store`](Self::update_in_store); the closure's own error
    /// is inside the `Ok`.
    pub async fn try_update_in_store<R, E>(
        &self,
        key: impl AsRef<str>,
        mut change: impl FnMut(&mut Option<V>) -> Result<R, E>,
    ) -> Result<Result<R, E>> {
        let key = key.as_ref();
        let policy = &self.core.options.retry_conflicts;
        let mut delays = policy.delays();
        let mut attempt = 1;
        loop {
            let base = self.base(key, attempt > 1).await?;
            let (expect, ttl) = match &base {
                Some(base) => (Expect::At(base.revision), base.ttl),
                None => (Expect::Absent, None),
            };
            let mut value = base.map(|base| base.value);
            let done = match change(&mut value) {
                Ok(done) => done,
                Err(given_up) => return Ok(Err(given_up)),
            };
            if value.is_none() && expect == Expect::Absent {
                return Ok(Ok(done));
            }
            match self.propose_change(key, value, ttl, expect).await {
                Ok(_) => return Ok(Ok(done)),
                Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
                Err(error) if attempt >= policy.attempts() => return Err(too_slow(attempt, error)),
                // If the runtime has shut down, the next attempt returns `Closed`.
                Err(_) => drop(self.sleep(delays.next().unwrap_or_default()).await),
            }
            attempt += 1;
        }
    }

    /// The stored value at this key, as far as is known: the value in memory, once
    /// it is saved, or else the result of a load.
    ///
    /// After a conflict (`is_retry`), the store is always read. Memory holds the
    /// value found by the conflict, but other writers may have replaced it during
    /// the delay; an attempt that starts from an old value conflicts again.
    async fn base(&self, key: &str, is_retry: bool) -> Result<Option<Base<V>>> {
        ReentrancyGuard::check();
        let core = &self.core;
        if core.must_clear() || core.peek(key, |slot| core.has_user_change(slot)) == Some(true) {
            core.alter(key, |entry| entry.wait())?.wait().await?;
        }
        // A commit in flight may create an entry where there is none. If there is
        // one, this save is queued behind that commit and is judged by its result.
        while core.peek(key, |slot| core.may_come(slot)) == Some(true) {
            core.alter(key, |entry| entry.wait())?.wait().await?;
        }
        if let Some(base) = core.clean(key).filter(|_| !is_retry) {
            return Ok(Some(base));
        }
        let (loads, loaded_key) = (core.clone(), Arc::from(key));
        let loaded = self.on_own_runtime(async move { loads.loaded(loaded_key).await });
        let loaded = loaded.await.unwrap_or_else(|| Err(core.outlived()))?;
        // At the same revision, memory also knows the entry's own time to live.
        let revision = loaded.as_ref().map(|base| base.revision);
        let same = core
            .clean(key)
            .filter(|base| Some(base.revision) == revision);
        Ok(same.or(loaded))
    }
}

impl<V, L> Core<V, L>
where
    V: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// The value in memory, if the store holds it unchanged.
    fn clean(&self, key: &str) -> Option<Base<V>> {
        self.peek(key, |slot| {
            let (value, lease) = slot.live(&self.lifetime)?;
            let revision = slot.state().stored.revision()?;
            (!self.has_user_change(slot)).then(|| Base {
                value: value.clone(),
                revision,
                ttl: self.lifetime.own(lease),
            })
        })?
    }

    /// Whether there is no entry, and a commit in flight may create one.
    fn may_come(&self, slot: &Slot<V, L::Lease>) -> bool {
        slot.state().mark.is_proposed() && slot.live(&self.lifetime).is_none()
    }

    async fn loaded(&self, key: Arc<str>) -> Result<Option<Base<V>>> {
        let keys: Arc<[Arc<str>]> = [key.clone()].into();
        let load = || async {
            let load = self.provider.load(&self.name, Wanted::Keys(keys)).await?;
            load.into_records().await
        };
        let records = self.call(load).await?;
        let live = |record: &Record| record.expires_at.is_none_or(|end| self.clock.now() < end);
        let record = records.into_iter().find(|r| r.key == key && live(r));
        let Some((record, payload)) = record.and_then(|r| r.value.clone().map(|p| (r, p))) else {
            return Ok(None);
        };
        let (revision, ttl) = (record.revision, self.lifetime.stored_own(&record));
        let on_key = |error: Error| error.on_map(&self.name).on_keys([record.key]);
        let value = self.decode(&payload).map_err(on_key)?.value;
        Ok(Some(Base {
            value,
            revision,
            ttl,
        }))
    }

    fn outlived(&self) -> Error {
        let message = "the runtime on which the map was opened has shut down: open the map again \
                       on a running runtime; nothing was written";
        Error::new(ErrorKind::Closed, message).on_map(&self.name)
    }
}

fn too_slow(attempts: u32, last: Error) -> Error {
    let message = format!(
        "another writer was faster {attempts} times, and nothing was written; call it again, or \
         raise `retry_conflicts`"
    );
    let mut error = Error::new(ErrorKind::Conflict, message).on_keys(last.keys().to_vec());
    if let Some(map) = last.map() {
        error = error.on_map(map);
    }
    error.with_found(last.found().cloned()).with_source(last)
}
