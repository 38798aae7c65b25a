//! Loads stored records into memory, on opening and on reload.

use std::{collections::HashSet, sync::Arc, sync::atomic::Ordering::SeqCst, time::SystemTime};

use serde::de::DeserializeOwned;

use super::unreadable::UnreadableKeys;
use crate::{
    clock::Seen,
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    load::Load,
    map::{
        api::builder::options::Progress,
        coding::Decoded,
        core::Core,
        lifetime::Lifetime,
        table::{
            discarded::{Discarded, RemovedEntry},
            entry::Slot,
            reentrancy::ReentrancyGuard,
            save_state::{Event, Mark, SaveState, StoredVersion},
            shards::{EntryMut, Shard},
        },
    },
    record::{Record, Revision},
    trace::LOAD,
};

/// The properties of the store as a whole that a load returns.
#[derive(Clone, Copy)]
pub(crate) struct Loaded {
    pub(crate) horizon: Revision,
    pub(crate) incarnation: Option<Incarnation>,
    /// Set if the load comes from a copy of the store, which has all commits up to this
    /// time.
    pub(crate) copied_at: Option<SystemTime>,
}

impl<V: DeserializeOwned, L: Lifetime<V>> Core<V, L> {
    /// Fills the empty map from the store.
    ///
    /// # Errors
    ///
    /// The provider's error; `Corrupt`, naming all unreadable keys, if records do
    /// not decode.
    pub(crate) async fn load(&self, progress: Option<&Progress>) -> Result<Loaded> {
        let (loaded, mut load) = self.begin_load().await?;
        let mut unread = UnreadableKeys::default();
        let mut records = 0;
        let total = load.total_hint;
        let take = |page: Vec<Record>| {
            records += page.len() as u64;
            for record in page {
                self.take_in(record, 0, &mut unread)?;
            }
            if let Some(progress) = progress {
                progress(records, total);
            }
            Ok(())
        };
        self.read_pages(&mut load, take).await?;
        unread.check::<V>(records, &self.name)?;
        if L::EXPIRES {
            self.all_loaded();
        }
        Ok(loaded)
    }

    pub(crate) fn all_loaded(&self) {
        let _guard = ReentrancyGuard::enter();
        self.shards.for_each_mut(|EntryMut { key, slot }| {
            let Slot::Live { lease, state, .. } = slot else {
                return;
            };
            if self.lifetime.loaded(key, lease) && state.mark == Mark::Clean {
                // Only the expiry is written: the store keeps the value as it was
                // written, perhaps by another program.
                self.lifetime.touch(lease);
                self.apply(key, state, Event::Touched);
            }
        });
    }

    /// Replaces every entry without a pending change by its stored state, from this
    /// load.
    ///
    /// Called by the flusher, so no commit of this map is in flight: an entry that
    /// is clean now was clean during the whole load, and a clean entry that the
    /// store does not have was deleted by another process.
    ///
    /// # Errors
    ///
    /// The provider's error: entries read before it are as in the store, the others
    /// are unchanged. `Corrupt` if records do not decode: their entries are
    /// unchanged, the others are as in the store. No pending change is lost.
    pub(crate) async fn take_all(
        &self,
        mut load: Load<'_>,
        progress: Option<&Progress>,
    ) -> Result<()> {
        // Not `self.generation`: the stored records are older than an uncommitted
        // clear, so none of them may be taken in while one is pending.
        let generation = self.stored_generation.load(SeqCst);
        let mut seen = HashSet::new();
        let mut unreadable = HashSet::new();
        let mut unread = UnreadableKeys::in_open_map();
        let total = load.total_hint;
        let take = |page: Vec<Record>| {
            for record in page {
                let key = record.key.clone();
                if !self.take_in(record, generation, &mut unread)? {
                    unreadable.insert(key.clone());
                }
                seen.insert(key);
            }
            if let Some(progress) = progress {
                progress(seen.len() as u64, total);
            }
            Ok(())
        };
        self.read_pages(&mut load, take).await?;
        self.drop_unseen(&seen, generation);
        self.list_only(&unreadable);
        unread.check::<V>(seen.len() as u64, &self.name)
    }

    /// Takes in one stored record, unless its key has a pending change or the map
    /// was cleared since `generation`. Returns whether the record is readable.
    fn take_in(
        &self,
        record: Record,
        generation: u64,
        unread: &mut UnreadableKeys,
    ) -> Result<bool> {
        let Some(payload) = &record.value else {
            return Ok(true);
        };
        self.observe_time_of(&record);
        match self.decode(payload) {
            Ok(decoded) => {
                let replaced = self.place(&record, decoded, generation);
                self.discard(replaced);
                Ok(true)
            }
            Err(error) => {
                let error = error.on_map(&self.name).on_keys([record.key.clone()]);
                self.not_decoded(record, error, generation, unread)?;
                Ok(false)
            }
        }
    }

    fn observe_time_of(&self, record: &Record) {
        let written = record.updated_at;
        // No program writes an entry that has expired already. If a record claims
        // that, its write time comes from another program, perhaps in another unit:
        // adopting it would expire all other entries.
        let Some(written) = written.filter(|at| Some(*at) <= record.expires_at) else {
            return;
        };
        if self.clock.observe(written) == (Seen::Glitch { is_first: true }) {
            tracing::warn!(
                target: LOAD, map = %self.name, ?written, now = ?self.clock.now(),
                "an entry says that it was written more than a day from now: a clock is or was \
                 wrong; the map uses its own"
            );
            tracing::trace!(target: LOAD, map = %self.name, key = %record.key, "this entry says so");
        }
    }

    fn not_decoded(
        &self,
        record: Record,
        error: Error,
        generation: u64,
        unread: &mut UnreadableKeys,
    ) -> Result<()> {
        // A record of an unknown schema fails the load. If it counted as
        // unreadable, the map would open and write its own records beside all
        // records of that schema.
        if error.kind() == ErrorKind::Invalid {
            return Err(error);
        }
        if !self.options.allow_unreadable {
            unread.add(record.key.clone(), error.clone());
            // In an open map the key may be written to. A listed record is set
            // aside before such a write.
            if unread.is_open {
                self.list_unreadable(record, error);
            }
            return Ok(());
        }
        self.discard_entry(self.displace(&record.key, generation));
        self.list_unreadable(record, error);
        Ok(())
    }

    fn place(
        &self,
        record: &Record,
        decoded: Decoded<V>,
        generation: u64,
    ) -> Option<Discarded<V, L>> {
        let value = decoded.value;
        let rewrite = decoded.is_upgraded && self.may_rewrite(record);
        let known = StoredVersion::at(Some(record.revision));
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(&record.key);
        let mut shard = self.shards.write(hash);
        // A clear is later than every stored record: none of them comes back.
        if self.generation.load(SeqCst) != generation {
            return Some(Discarded::Value(value));
        }
        let Some(EntryMut { slot, .. }) = shard.find_mut(hash, &record.key) else {
            let lease = self.lifetime.adopt(record);
            let mut state = SaveState::new(known);
            let key = record.key.clone();
            if rewrite {
                self.apply(&key, &mut state, Event::Automatic);
            }
            let slot = Slot::Live {
                value,
                lease,
                state,
            };
            self.observe(&key, slot.value());
            shard.insert(hash, key, slot);
            return None;
        };
        let changed = slot.state().stored != known || known.revision().is_none();
        if !slot.is_clean() {
            // With conflict detection, a change must be judged by the version that
            // it was made on. An automatic change always must, because it may only
            // replace that version.
            if self.has_user_change(slot) && !self.conflicts.are_detected() {
                slot.state_mut().stored = known;
            }
            return Some(Discarded::Value(value));
        }
        if !changed {
            return Some(Discarded::Value(value));
        }
        slot.state_mut().stored = known;
        let removed = self.put_stored(slot, record, value);
        if rewrite {
            self.apply(&record.key, slot.state_mut(), Event::Automatic);
        }
        removed.map(Discarded::Entry)
    }

    /// Whether to store the migrated value of this record. Not if it has an expiry:
    /// a time counted from the last write would restart at the next opening.
    fn may_rewrite(&self, record: &Record) -> bool {
        self.options.migrations.rewrite && record.expires_at.is_none()
    }

    /// Replaces the value in a slot by a stored one.
    pub(crate) fn put_stored(
        &self,
        slot: &mut Slot<V, L::Lease>,
        record: &Record,
        value: V,
    ) -> Option<RemovedEntry<V, L>> {
        if let Some(lease) = slot.lease() {
            self.lifetime.ended(&record.key, lease);
        }
        let removed = slot.put(value, self.lifetime.adopt(record));
        self.observe(&record.key, slot.value());
        slot.state_mut().is_over_expired = false;
        removed.map(|(value, lease)| RemovedEntry::new(&record.key, value, lease))
    }

    /// Removes an entry from memory that the store does not have.
    pub(crate) fn remove_entry(
        &self,
        shard: &mut Shard<'_, V, L::Lease>,
        hash: u64,
        key: &str,
    ) -> Option<RemovedEntry<V, L>> {
        let (key, slot) = shard.remove(hash, key)?;
        let (value, lease) = slot.into_value()?;
        self.lifetime.ended(&key, &lease);
        self.observe(&key, None);
        Some(RemovedEntry::new(&key, value, lease))
    }

    /// Removes a clean entry from memory.
    fn displace(&self, key: &Arc<str>, generation: u64) -> Option<RemovedEntry<V, L>> {
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        if self.generation.load(SeqCst) != generation {
            return None;
        }
        if !shard.find(hash, key)?.slot.is_clean() {
            return None;
        }
        self.remove_entry(&mut shard, hash, key)
    }

    fn drop_unseen(&self, seen: &HashSet<Arc<str>>, generation: u64) {
        let unseen = {
            let _guard = ReentrancyGuard::enter();
            self.shards
                .keys(|e| e.slot.is_clean() && !seen.contains(e.key))
        };
        for key in unseen {
            self.discard_entry(self.displace(&key, generation));
        }
    }

    /// The error of a failed close, naming the unsaved keys.
    pub(crate) fn not_closed(&self, error: &Error) -> Error {
        let unsaved = self.unsaved();
        if unsaved.is_empty() && error.kind() != ErrorKind::Invalid {
            return error.clone();
        }
        let message = match error.kind() {
            ErrorKind::Refused => {
                "the map is not closed, and stays open: the changes of these keys are not saved; \
                 refused changes stay in memory and are not retried: write to their keys again, \
                 or call `retry_refused()`, and close again"
            }
            ErrorKind::Closed => {
                "the map is not closed, and the changes of these keys can no longer be saved, \
                 because its provider was closed or its runtime shut down before it; they are in \
                 memory: `export` writes them to a file; close a map before its provider and its \
                 runtime"
            }
            _ => {
                "the map is not closed, and stays open: the changes of these keys are not saved; \
                 they stay pending and are retried"
            }
        };
        Error::new(error.kind(), message)
            .on_map(&self.name)
            .on_keys(unsaved)
            .with_source(error.clone())
            .nothing_applied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{Batch, BatchId, Change, MapBatch, WriterId},
        clock::{MapClock, SystemClock},
        map::{
            api::builder::options::Options,
            lifetime::Forever,
            shared::Shared,
            write_behind::conflicts::{Conflicts, OnConflict},
        },
        provider::{Provider, memory::Memory},
        record::Payload,
    };

    /// A reload undid a `clear` made between the flusher's last commit and the
    /// reload. The clear was not committed yet, so the store returned all entries;
    /// they became clean, and stayed in memory when the clear emptied the store.
    #[tokio::test]
    async fn a_reload_does_not_bring_back_entries_of_an_uncommitted_clear() {
        let store = Memory::new();
        let changes = vec![Change::put("old", Payload::json("1"), None)];
        let part = MapBatch::new("map".try_into().unwrap(), changes);
        let id = BatchId::new(WriterId::random(), 1);
        let clock = Arc::new(MapClock::new(Arc::new(SystemClock::new())));
        let batch = Batch::new(id, Revision::ZERO, clock.now(), vec![part]);
        store.commit(&batch).await.unwrap();
        let name = "map".try_into().unwrap();
        let shared = Shared::new(name, Arc::new(store), Options::default(), clock);
        let conflicts = Conflicts::new(OnConflict::LastWrite);
        let core: Core<u32, Forever> = Core::new(shared, Forever, conflicts);
        core.load(None).await.unwrap();
        assert_eq!(core.len(), 1);
        core.clear(|| {}).unwrap();
        core.alter("new", |entry| entry.put(2, None)).unwrap();
        let (_, load) = core.begin_load().await.unwrap();
        core.take_all(load, None).await.unwrap();
        assert_eq!(core.look("old", |n| *n), None);
        assert_eq!(core.look("new", |n| *n), Some(2));
    }
}
