//! Reconciles memory and the store after the store has gone back in time.

use std::{collections::HashMap, sync::Arc};

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
        write_behind::committer::degraded::store_is_down,
    },
    record::Record,
};

/// All records that the store holds of a map.
pub(crate) struct Whole {
    pub(crate) loaded: Loaded,
    records: Vec<Record>,
}

impl<V: DeserializeOwned, L: Lifetime<V>> Core<V, L> {
    /// Reads all records before anything in memory changes: a load that fails
    /// halfway must not leave a mixture of two states.
    ///
    /// # Errors
    ///
    /// The provider's error; `Unavailable` if only a copy of the store answers; `Corrupt`
    /// if a record does not decode (and unreadable records are not allowed). Nothing was
    /// changed.
    pub(crate) async fn read_whole(&self) -> Result<Whole> {
        let (loaded, mut load) = self.begin_load().await?;
        if loaded.copied_at.is_some() {
            // What a copy lacks, the store has not lost.
            return Err(store_is_down().on_map(&self.name));
        }
        let mut records = Vec::new();
        let take = |page: Vec<Record>| {
            for record in &page {
                self.check_readable(record)?;
            }
            records.extend(page);
            Ok(())
        };
        self.read_pages(&mut load, take).await?;
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

    /// Replaces entries in memory by the stored records, except pending changes.
    ///
    /// # Errors
    ///
    /// None that [`read_whole`](Self::read_whole) did not return before.
    pub(crate) async fn take_store(&self, store: Whole) -> Result<()> {
        let load = Load::of(store.loaded.horizon, store.records);
        self.take_all(load, None).await
    }

    /// Makes every entry in memory pending, and the removal of every stored entry
    /// that memory does not have.
    ///
    /// Called by the flusher, so no commit of this map is in flight. Writes made
    /// meanwhile are pending anyway. Each entry learns its stored version, so that
    /// a map that detects conflicts reports only conflicts with changes made after
    /// this point.
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

    /// Makes the value pending, whatever version the store had.
    fn pend(&self, key: &Arc<str>, slot: &mut Slot<V, L::Lease>) {
        let Slot::Live { lease, state, .. } = slot else {
            return;
        };
        // Expired entries are about to be removed; refused changes would be refused
        // again.
        if !self.lifetime.is_live(lease) || state.mark == Mark::Refused {
            return;
        }
        self.lifetime.lost(lease);
        self.apply(key, state, Event::Written);
    }

    fn remove_from_store(&self, record: Record) {
        // An unreadable record was never in memory, so its absence is not a
        // removal.
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
        // A pending clear removes it as well.
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

    /// Starts to load all records.
    pub(crate) async fn begin_load(&self) -> Result<(Loaded, Load<'_>)> {
        let load = self
            .call(|| self.provider.load(&self.name, Wanted::All))
            .await?;
        let loaded = Loaded {
            horizon: load.horizon,
            incarnation: load.incarnation,
            copied_at: load.copied_at,
        };
        Ok((loaded, load))
    }
}

fn known(stored: Option<&Record>) -> StoredVersion {
    let revision = stored.map(|record| record.revision);
    revision.map_or(StoredVersion::ABSENT, |at| StoredVersion::at(Some(at)))
}
