//! An in-memory provider.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    Capabilities, Provider,
    ledger::{self, Admission, TOMBSTONES_KEPT, Tombstones, Writers},
};
use crate::{
    batch::{Batch, Committed, MapBatch, Skipped},
    error::{Error, ErrorKind, Result},
    heartbeat::Heartbeat,
    incarnation::Incarnation,
    load::{Load, Wanted},
    name::MapName,
    record::{Deletion, Record, Revision},
};

/// Stores maps in memory: for tests, and for maps that end with the process.
///
/// Clones share their contents, so that tests can simulate a restart: close the map, and reopen
/// it on a clone. Each clone is [closed](Provider::close) separately.
#[derive(Debug, Default)]
pub struct Memory {
    kept: Arc<Mutex<Kept>>,
    closed: AtomicBool,
    heartbeat: Heartbeat,
}

/// The contents, shared by all clones.
#[derive(Clone, Debug)]
struct Kept {
    incarnation: Incarnation,
    maps: HashMap<MapName, Table>,
    writers: Writers,
    /// The revisions at which maps were dropped. They are kept for good, to fence writers
    /// however late they commit.
    dropped: HashMap<MapName, Revision>,
    /// One counter for all maps: a batch over several of them has one revision.
    last: Revision,
    retention: Duration,
}

#[derive(Clone, Debug, Default)]
struct Table {
    records: BTreeMap<Arc<str>, Record>,
    tombstones: Tombstones,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            incarnation: Incarnation::random(),
            maps: HashMap::new(),
            writers: Writers::new(),
            dropped: HashMap::new(),
            last: Revision::ZERO,
            retention: TOMBSTONES_KEPT,
        }
    }
}

impl Memory {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long tombstones of deleted entries are kept, for readers that follow the
    /// [changes](crate::Wanted::Changed) of a map. The default is one day. The setting is
    /// shared by all clones.
    #[must_use]
    pub fn keep_tombstones(self, time: Duration) -> Self {
        self.kept.lock().retention = time;
        self
    }

    /// Returns an independent copy of the current contents, like a backup of a database.
    #[must_use]
    pub fn backup(&self) -> Self {
        let kept = self.kept.lock().clone();
        Self {
            kept: Arc::new(Mutex::new(kept)),
            ..Self::default()
        }
    }

    /// Replaces the contents by those of the backup, for all clones and under open maps. Tests
    /// use it for stores that go back in time. `Memory::new()` is an empty backup.
    pub fn restore(&self, backup: &Self) {
        // The locks are taken one after the other, so two restores cannot deadlock.
        let kept = backup.kept.lock().clone();
        *self.kept.lock() = kept;
    }

    fn check_open(&self) -> Result<()> {
        // Only the flag is shared; the contents have their own lock.
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(
                ErrorKind::Closed,
                "this memory provider was closed; open another",
            ));
        }
        Ok(())
    }
}

impl Clone for Memory {
    fn clone(&self) -> Self {
        Self {
            kept: Arc::clone(&self.kept),
            closed: AtomicBool::new(self.closed.load(Ordering::Relaxed)),
            heartbeat: self.heartbeat.clone(),
        }
    }
}

#[async_trait]
impl Provider for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities::least()
            .with_several_maps()
            .with_conditions()
            .with_deletions()
            .with_bytes()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.check_open()?;
        let kept = self.kept.lock();
        let mut load = match kept.maps.get(map) {
            Some(table) => table.load(&wanted, kept.last),
            None => Load::of(kept.last, Vec::new()),
        };
        if let Wanted::Changed { after, .. } = &wanted {
            // To a reader that follows the map, a drop is a clear.
            let dropped = kept.dropped.get(map).filter(|at| *at > after);
            load.cleared = load.cleared.max(dropped.copied());
        }
        Ok(load.with_incarnation(Some(kept.incarnation)))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.check_open()?;
        self.kept.lock().commit(batch)
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        self.check_open()?;
        let kept = self.kept.lock();
        Ok(kept.maps.keys().cloned().collect())
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        self.check_open()?;
        self.kept.lock().drop_map(map);
        Ok(())
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        self.check_open()?;
        Ok(Some(self.kept.lock().incarnation))
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        Some(self.heartbeat.clone())
    }

    async fn release(&self, _map: &MapName) -> Result<()> {
        self.check_open()
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Kept {
    fn commit(&mut self, batch: &Batch) -> Result<Committed> {
        let last = |writer| self.writers.sequence_of(writer);
        let answer = match ledger::admit(batch, Some(self.incarnation), last) {
            Admission::Apply => self.apply(batch)?,
            Admission::Repeat => self.writers.answer_to(batch.id.writer),
            Admission::Refuse(error) => return Err(error),
            Admission::Renew(incarnation, error) => {
                self.incarnation = incarnation;
                return Err(error);
            }
        };
        Ok(answer.with_incarnation(Some(self.incarnation)))
    }

    fn apply(&mut self, batch: &Batch) -> Result<Committed> {
        let dropped = |map: &MapName| Ok::<_, Error>(self.dropped.get(map).copied());
        ledger::check_dropped(batch, dropped)?;
        // All conditions are checked before the first change, so that a conflict in the last
        // map leaves the first one unchanged.
        let skipped = ledger::check_conditions(batch, |map, key| {
            let table = self.maps.get(map);
            Ok::<_, Error>(table.and_then(|table| table.records.get(key)).cloned())
        })?;
        let revision = batch.revision_after(self.last);
        for part in batch.maps.iter() {
            self.change(part, batch, revision, &skipped);
        }
        self.last = revision;
        let answer = Committed::at(revision).with_skipped(skipped);
        self.writers
            .remember(batch.id, SystemTime::now(), answer.clone());
        Ok(answer)
    }

    fn drop_map(&mut self, map: &MapName) {
        self.last = ledger::clearing(map).revision_after(self.last);
        self.maps.remove(map);
        self.dropped.insert(map.clone(), self.last);
    }

    fn change(&mut self, part: &MapBatch, batch: &Batch, to: Revision, skipped: &[Skipped]) {
        let Table {
            records,
            tombstones,
        } = self.maps.entry(part.map.clone()).or_default();
        if part.clear {
            records.clear();
            tombstones.clear(to);
        }
        for change in ledger::applied(part, skipped) {
            let key = &change.key;
            if let Some(record) = change.apply(|| records.get(key).cloned(), batch.at, to) {
                tombstones.put(key);
                records.insert(key.clone(), record);
            } else if records.remove(key).is_some() {
                let deletion = Deletion::new(change.cause, batch.id.writer);
                let tombstone = Record::deleted(key.clone(), to, deletion);
                tombstones.delete(tombstone.with_updated_at(Some(batch.at)));
            }
        }
        tombstones.prune(batch.at, self.retention);
    }
}

impl Table {
    fn load(&self, wanted: &Wanted, last: Revision) -> Load<'static> {
        use std::ops::Bound::{Excluded, Unbounded};
        let records = &self.records;
        let found: Vec<_> = match wanted {
            Wanted::All => records.values().cloned().collect(),
            Wanted::Keys(keys) => {
                // A key that is requested twice is returned once.
                let keys: BTreeSet<_> = keys.iter().collect();
                let found = keys.into_iter().filter_map(|key| records.get(key));
                found.cloned().collect()
            }
            Wanted::Page { after, limit } => {
                let from = after.clone().map_or(Unbounded, Excluded);
                let page = records.range((from, Unbounded)).take(*limit);
                page.map(|(_, record)| record.clone()).collect()
            }
            Wanted::Changed { after, limit } => {
                let tombstones = &self.tombstones;
                return tombstones.changes(records.values(), *after, *limit, last);
            }
        };
        Load::of(last, found)
    }
}
