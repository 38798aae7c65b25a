//! Brings the copy of a map up to date: by its changes, or by comparing all records.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use super::{
    limit::within,
    watermark::{Copies, Watermark},
};
use crate::{
    batch::{Change, MapBatch},
    clock::{Clock, SystemClock},
    codec,
    error::{ErrorKind, Result},
    incarnation::Incarnation,
    load::{PAGE_RECORDS, Wanted},
    name::MapName,
    provider::Provider,
    record::{Record, Revision, Timestamp},
};

/// How often in a row another process may be faster.
const MAX_CONFLICTS: usize = 10;

/// After this time, a watermark is moved even if there is nothing new to copy, so that the age of
/// the copy stays true.
const WATERMARK_KEPT: u64 = 60_000;

/// Copies maps from the primary to the standby.
#[derive(Debug)]
pub(super) struct Copying {
    primary: Arc<dyn Provider>,
    copies: Copies,
    clock: SystemClock,
}

/// How a map was brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Changes,
    /// All records were compared, because the primary does not tell the changes.
    Comparison,
}

/// The changes after a watermark, as far as the primary tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    All,
    /// The first of them.
    Some,
    /// Those just after the watermark are missing; later ones will be told.
    Gap,
    Nothing,
}

/// A load that was read to its end.
struct Loaded {
    horizon: Revision,
    incarnation: Option<Incarnation>,
    is_cleared: bool,
    is_pruned: bool,
    records: Vec<Record>,
}

impl Copying {
    pub(super) fn new(primary: Arc<dyn Provider>, copies: Copies) -> Self {
        Self {
            primary,
            copies,
            clock: SystemClock::new(),
        }
    }

    /// Brings the copy up to date with every commit that was acknowledged before this call.
    ///
    /// It may be dropped at any await: every commit to the standby leaves a copy that is true to
    /// its watermark.
    pub(super) async fn catch_up(&mut self, map: &MapName) -> Result<Manner> {
        let mut conflicts = 0;
        loop {
            match self.step(map).await {
                Ok(None) => {}
                Ok(Some(manner)) => return Ok(manner),
                Err(error) if error.kind() == ErrorKind::Conflict && conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes one step; `None` if there is more to copy.
    async fn step(&mut self, map: &MapName) -> Result<Option<Manner>> {
        let known = self.copies.watermark(map).await?;
        let told = match known.filter(|known| known.copied_at.is_some()) {
            Some(known) => self.follow(map, known).await?,
            None => Told::Gap,
        };
        match told {
            Told::All => return Ok(Some(Manner::Changes)),
            Told::Some => return Ok(None),
            Told::Gap | Told::Nothing => self.compare_all(map, known.unwrap_or_default()).await?,
        }
        Ok(Some(if told == Told::Gap {
            Manner::Changes
        } else {
            Manner::Comparison
        }))
    }

    /// Copies the first changes after the watermark.
    async fn follow(&mut self, map: &MapName, known: Watermark) -> Result<Told> {
        // Without tombstones, deletions would stay in the copy.
        if !self.primary.capabilities().deletions {
            return Ok(Told::Nothing);
        }
        // Before the load, which contains every commit that was acknowledged by now.
        let now = Some(Timestamp::of(self.clock.now()));
        let wanted = Wanted::some_changed(known.revision, PAGE_RECORDS);
        let told = match self.load(&*self.primary, map, wanted).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(Told::Nothing),
            told => told?,
        };
        let is_other = told.incarnation != known.incarnation;
        // A lower horizon: the primary was replaced by an older copy while nothing was open.
        if is_other || told.is_pruned || told.horizon < known.revision {
            return Ok(Told::Gap);
        }
        let is_all = told.records.len() < PAGE_RECORDS;
        let next = Watermark {
            revision: told.horizon,
            incarnation: told.incarnation,
            copied_at: if is_all { now } else { known.copied_at },
        };
        let is_emptied = told.is_cleared && told.records.is_empty();
        let is_dropped = is_emptied && self.drop_unless_listed(map).await?;
        let changes = told.records.into_iter().map(change).collect();
        let part = MapBatch::new(map.clone(), changes).clearing(told.is_cleared && !is_dropped);
        let is_same = part.changes.is_empty() && !told.is_cleared;
        if !is_same || !is_close(known, next) {
            self.copies.commit(part, next).await?;
        }
        Ok(if is_all { Told::All } else { Told::Some })
    }

    /// Drops the copy of a map that was dropped: the changes of a map tell that as a clear.
    /// Returns whether it was dropped.
    async fn drop_unless_listed(&self, map: &MapName) -> Result<bool> {
        let limit = self.copies.limit;
        let is_listed = match within(limit, self.primary.maps()).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => true,
            listed => listed?.contains(map),
        };
        if is_listed {
            return Ok(false);
        }
        match within(limit, self.copies.standby.drop_map(map)).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            dropped => dropped.map(|()| true),
        }
    }

    /// Compares all records of the map, range by range, and copies what differs.
    ///
    /// Commits made meanwhile may be in it or not; they come after the horizon of the first range,
    /// so the changes after it contain them.
    async fn compare_all(&mut self, map: &MapName, known: Watermark) -> Result<()> {
        let now = self.clock.now();
        let (mut after, mut first) = (None, None);
        loop {
            let wanted = Wanted::page(after.clone(), PAGE_RECORDS);
            let page = self.load(&*self.primary, map, wanted).await?;
            first.get_or_insert((page.horizon, page.incarnation));
            let is_last = page.records.len() < PAGE_RECORDS;
            let end = page.records.last().filter(|_| !is_last);
            let end = end.map(|record| record.key.clone());
            let copied = self.copied(map, after.take(), end.as_ref()).await?;
            let changes = differences(page.records, copied);
            if !changes.is_empty() {
                // The copy now has commits after its watermark, but it misses none before it.
                let part = MapBatch::new(map.clone(), changes);
                self.copies.commit(part, known).await?;
                self.copies.watermark(map).await?;
            }
            if is_last {
                break;
            }
            after = end;
        }
        let (horizon, incarnation) = first.unwrap_or_default();
        let watermark = Watermark::new(horizon, incarnation, now);
        let nothing = MapBatch::new(map.clone(), Vec::new());
        self.copies.commit(nothing, watermark).await
    }

    /// The records of the copy in a range of keys: after the one, and up to the other.
    async fn copied(
        &self,
        map: &MapName,
        mut after: Option<Arc<str>>,
        end: Option<&Arc<str>>,
    ) -> Result<HashMap<Arc<str>, Record>> {
        let mut copied = HashMap::new();
        loop {
            let wanted = Wanted::page(after.take(), PAGE_RECORDS);
            let page = self.load(&*self.copies.standby, map, wanted).await?.records;
            let is_last = page.len() < PAGE_RECORDS;
            after = page.last().map(|record| record.key.clone());
            let is_within = |record: &Record| end.is_none_or(|end| record.key <= *end);
            let is_over = is_last || page.last().is_some_and(|record| !is_within(record));
            let within = page.into_iter().filter(is_within);
            copied.extend(within.map(|record| (record.key.clone(), record)));
            if is_over {
                return Ok(copied);
            }
        }
    }

    async fn load(&self, from: &dyn Provider, map: &MapName, wanted: Wanted) -> Result<Loaded> {
        within(self.copies.limit, async {
            let load = from.load(map, wanted).await?;
            Ok(Loaded {
                horizon: load.horizon,
                incarnation: load.incarnation,
                is_cleared: load.cleared.is_some(),
                is_pruned: load.pruned_to.is_some(),
                records: load.into_records().await?,
            })
        })
        .await
    }
}

/// The change that makes the copy equal to this record of the primary.
fn change(record: Record) -> Change {
    if let Some(value) = record.value {
        return Change::put(record.key, value, record.expires_at).written_at(record.updated_at);
    }
    let cause = record.deletion.map(|deletion| deletion.cause);
    Change::delete(record.key).because(cause.unwrap_or_default())
}

fn differences(records: Vec<Record>, mut copied: HashMap<Arc<str>, Record>) -> Vec<Change> {
    let mut changes = Vec::new();
    for record in records {
        let copy = copied.remove(&record.key);
        if !copy.is_some_and(|copy| is_same(&record, &copy)) {
            changes.push(change(record));
        }
    }
    changes.extend(copied.into_keys().map(Change::delete));
    changes
}

fn is_same(record: &Record, copy: &Record) -> bool {
    let expiry = |at: Option<SystemTime>| at.map(Timestamp::of);
    let (Some(value), Some(copied)) = (&record.value, &copy.value) else {
        return false;
    };
    expiry(record.expires_at) == expiry(copy.expires_at)
        && value.schema == copied.schema
        && codec::same(value, copied)
}

/// Whether a watermark need not be moved to the next one, if there is nothing to copy.
fn is_close(known: Watermark, next: Watermark) -> bool {
    let moved = next.copied_at.zip(known.copied_at);
    known.revision == next.revision
        && moved
            .is_some_and(|(next, known)| next.millis().abs_diff(known.millis()) < WATERMARK_KEPT)
}
