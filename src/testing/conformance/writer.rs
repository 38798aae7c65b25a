//! A writer for the checks. It creates batches as a map does.

use std::time::{Duration, SystemTime};

use crate::{
    batch::{Batch, BatchId, Change, Expect, MapBatch, Otherwise, WriterId},
    name::MapName,
    record::{Payload, Revision},
};

/// A writer with its own sequence and clock.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) id: WriterId,
    pub(super) sequence: u64,
    pub(super) after: Revision,
    pub(super) at: SystemTime,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            id: WriterId::random(),
            sequence: 0,
            after: Revision::ZERO,
            at: whole_milliseconds(SystemTime::now()),
        }
    }

    /// The next batch, with these changes of the map.
    pub(super) fn batch(&mut self, map: &MapName, changes: Vec<Change>) -> Batch {
        self.batch_of(vec![MapBatch::new(map.clone(), changes)])
    }

    /// The next batch, which clears the map and then applies these changes.
    pub(super) fn clearing(&mut self, map: &MapName, changes: Vec<Change>) -> Batch {
        self.batch_of(vec![MapBatch::new(map.clone(), changes).clearing(true)])
    }

    /// The next batch, with parts for several maps.
    pub(super) fn batch_of(&mut self, maps: Vec<MapBatch>) -> Batch {
        self.sequence += 1;
        self.at += Duration::from_millis(1);
        self.batch_numbered(self.sequence, maps)
    }

    /// A batch with this sequence.
    pub(super) fn batch_numbered(&self, sequence: u64, maps: Vec<MapBatch>) -> Batch {
        // As a map would mark it.
        let changes = maps.iter().flat_map(|part| &part.changes);
        let is_bound = |change: &Change| {
            let must = change.expect != Expect::Any && change.otherwise == Otherwise::Fail;
            must || change.group.is_some()
        };
        let divisible = !changes.into_iter().any(is_bound);
        let id = BatchId::new(self.id, sequence);
        Batch::new(id, self.after, self.at, maps).divisible(divisible)
    }
}

/// A put of a JSON number.
pub(super) fn put(key: &str, number: u64) -> Change {
    Change::put(key, number_payload(number), None)
}

pub(super) fn number_payload(number: u64) -> Payload {
    Payload::json(number.to_string())
}

/// Rounds to milliseconds, because stores may do so; expiries then fall exactly on the
/// intended moment.
pub(super) fn whole_milliseconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let whole = u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(whole)
}
