//! Read, change and write, against the store.

use std::{sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{Map, core::Core, inside::Inside, lifetime::Lifetime};
use crate::{
    batch::Expect,
    error::{Error, ErrorKind, Result},
    load::Wanted,
    record::{Record, Revision},
};

/// What to start from.
struct Known<V> {
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
    /// Changes the value at this key as the store has it, and saves it; the new
    /// value, or `None` if the store has none.
    ///
    /// Where [`update_and_save`](Self::update_and_save) changes what is in memory,
    /// this one takes part with other processes: it is saved only if nobody has
    /// written the key meanwhile, and otherwise `change` is called again, with
    /// what they have written, as often and as fast as
    /// [the policy](super::builder::Builder::retry_conflicts) says. Many increments
    /// by many processes add up.
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
    /// Those of all [conditional saves](Map#conditional-saves); `Conflict` if others
    /// were faster each time, and then nothing was written: call it again.
    /// `Corrupt` if what is stored does not decode.
    pub async fn update_in_store(
        &self,
        key: impl AsRef<str>,
        mut change: impl FnMut(V) -> V,
    ) -> Result<Option<V>> {
        let key = key.as_ref();
        let policy = &self.core.options.retry_conflicts;
        let mut delays = policy.delays();
        for attempt in 1.. {
            let Some(known) = self.known(key).await? else {
                break;
            };
            let new = change(known.value);
            let expect = Expect::At(known.revision);
            match self.propose(key, new.clone(), known.ttl, expect).await {
                Ok(_) => return Ok(Some(new)),
                Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
                Err(error) if attempt >= policy.attempts() => return Err(too_slow(attempt, error)),
                // Memory holds what was found, so the next try begins with it.
                // If there is nobody to wait with, it says so.
                Err(_) => drop(self.sleep(delays.next().unwrap_or_default()).await),
            }
        }
        Ok(None)
    }

    /// What the store has at this key, as far as is known: what memory has, once
    /// that is saved; or else what a load brings.
    async fn known(&self, key: &str) -> Result<Option<Known<V>>> {
        Inside::check_not();
        let core = &self.core;
        if core.must_clear() || core.peek(key, |slot| core.is_claimed(slot)) == Some(true) {
            core.alter(key, |spot| spot.wait())?.wait().await?;
        }
        if let Some(known) = core.clean(key) {
            return Ok(Some(known));
        }
        let (core, key) = (core.clone(), Arc::from(key));
        let loaded = self.on_own_runtime(async move { core.loaded(key).await });
        loaded.await.unwrap_or_else(|| Err(self.core.outlived()))
    }
}

impl<V, L> Core<V, L>
where
    V: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// What memory has at this key, if the store has it as it is.
    fn clean(&self, key: &str) -> Option<Known<V>> {
        self.peek(key, |slot| {
            let (value, lease) = slot.live(&self.lifetime)?;
            let revision = slot.trail().known.revision()?;
            (!self.is_claimed(slot)).then(|| Known {
                value: value.clone(),
                revision,
                ttl: self.lifetime.own(lease),
            })
        })?
    }

    async fn loaded(&self, key: Arc<str>) -> Result<Option<Known<V>>> {
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
        let on_key = |error: Error| error.on_map(&self.name).on_keys([record.key]);
        let value = self.decode(&payload).map_err(on_key)?.value;
        let revision = record.revision;
        let ttl = None;
        Ok(Some(Known {
            value,
            revision,
            ttl,
        }))
    }

    fn outlived(&self) -> Error {
        let message = "the runtime on which the map was opened has ended: open it again on a \
                       running runtime; nothing was written";
        Error::new(ErrorKind::Closed, message).on_map(&self.name)
    }
}

fn too_slow(attempts: u32, last: Error) -> Error {
    let message = format!(
        "others were faster {attempts} times, and nothing was written; call it again, or raise \
         `retry_conflicts`"
    );
    let mut error = Error::new(ErrorKind::Conflict, message).on_keys(last.keys().to_vec());
    if let Some(map) = last.map() {
        error = error.on_map(map);
    }
    error.with_found(last.found().cloned()).with_source(last)
}
