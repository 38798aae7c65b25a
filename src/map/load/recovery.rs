//! Memory and the store are made equal, after the store has gone back in time.

use std::{collections::HashMap, sync::Arc};

use futures_util::TryStreamExt;
use serde::de::DeserializeOwned;

use super::loading::Loaded;
use crate::{
    error::{ErrorKind, Result},
    load::{Load, Wanted},
    map::{
        core::Core,
        lifetime::Lifetime,
        table::{
            entry::Slot,
            reentrancy::ReentrancyGuard,
            save_state::{Event, Mark, SaveState, StoredVersion},
            shards::EntryMut,
        },
    },
    record::Record,
};

/// All that a store holds of a map.
pub(crate) struct Whole {
    pub(crate) loaded: Loaded,
    records: Vec<Record>,
}

impl<V: DeserializeOwned, L: Lifetime<V>> Core<V, L> {
    /// Reads all that the store holds, before anything in memory changes: a
    /// load that breaks off half way must not leave a mixture of two states.
    ///
    /// # Errors
    ///
    /// What the provider errs with; `Corrupt` if a record does not decode (and
    /// unreadable ones are not allowed). Nothing was changed.
    pub(crate) async fn read_whole(&self) -> Result<Whole> {
        let (loaded, mut load) = self.begin_load().await?;
        let mut records = Vec::new();
        while let Some(page) = self.call(|| load.pages.try_next()).await? {
            for record in &page {
                self.check_readable(record)?;
            }
            records.extend(page);
            tokio::task::yield_now().await;
        }
        Ok(Whole { loaded, records })
    }

    fn check_readable(&self, record: &Record) -> Result<()> {
        let Some(Err(error)) = record.value.as_ref().map(|payload| self.decode(payload)) else {
            return Ok(());
        };
        if self.options.allow_unreadable && error.kind() != ErrorKind::Invalid {
            return Ok(());
        }
        Err(error.on_map(&self.name).on_keys([record.key.clone()]))
    }

    /// Memory takes over what the store holds, but for what is pending.
    ///
    /// # Errors
    ///
    /// None that [reading](Self::read_whole) has not met.
    pub(crate) async fn take_store(&self, store: Whole) -> Result<()> {
        let load = Load::of(store.loaded.horizon, store.records);
        self.take_all(load, None).await
    }

    /// Everything in memory is pending from now on, and the removal of what the
    /// store holds and memory does not.
    ///
    /// The flusher calls it, so no commit of this map is in flight. What is
    /// written meanwhile is pending anyway. Each entry gets to know what the
    /// store has in its place, so that a map that looks for conflicts finds
    /// those with changes of others only that come after this.
    pub(crate) fn save_again(&self, store: Whole) {
        let mut stored: HashMap<_, _> = store
            .records
            .into_iter()
            .map(|r| (r.key.clone(), r))
            .collect();
        {
            let _guard = ReentrancyGuard::enter();
            self.shards.for_each_mut(|EntryMut { key, slot }| {
                slot.learn(known(stored.remove(key).as_ref()));
                self.pend(key, slot);
            });
        }
        for record in stored.into_values() {
            self.remove_from_store(record);
        }
    }

    /// The value is to be committed, whatever the store had of it.
    fn pend(&self, key: &Arc<str>, slot: &mut Slot<V, L::Lease>) {
        let Slot::Live { lease, state, .. } = slot else {
            return;
        };
        // What has expired is about to be removed; what was refused would be
        // refused again.
        if !self.lifetime.is_live(lease) || state.mark == Mark::Refused {
            return;
        }
        self.lifetime.lost(lease);
        self.apply(key, state, Event::Written);
    }

    fn remove_from_store(&self, record: Record) {
        // What cannot be read was never in memory, and is no removal.
        let value = record.value.as_ref().map(|payload| self.decode(payload));
        match value {
            None => return,
            Some(Err(error)) if self.is_listed(&record) => return drop(error),
            Some(Err(error)) => return self.list_unreadable(record, error.on_map(&self.name)),
            Some(Ok(decoded)) => self.drop_value(decoded.value),
        }
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(&record.key);
        let mut shard = self.shards.write(hash);
        // A clear that waits removes it as well.
        if self.must_clear() {
            return;
        }
        let known = known(Some(&record));
        if let Some(EntryMut { slot, .. }) = shard.find_mut(hash, &record.key) {
            return slot.learn(known);
        }
        let mut state = SaveState::new(known);
        self.apply(&record.key, &mut state, Event::Written);
        shard.insert(hash, record.key, Slot::Gone { state });
        shard.count_gone(1);
    }

    /// Begins to load everything.
    pub(crate) async fn begin_load(&self) -> Result<(Loaded, Load<'_>)> {
        let load = self
            .call(|| self.provider.load(&self.name, Wanted::All))
            .await?;
        self.check_shape(load.schema)?;
        let loaded = Loaded {
            horizon: load.horizon,
            incarnation: load.incarnation,
        };
        Ok((loaded, load))
    }
}

fn known(stored: Option<&Record>) -> StoredVersion {
    let revision = stored.map(|record| record.revision);
    revision.map_or(StoredVersion::ABSENT, |at| StoredVersion::at(Some(at)))
}
