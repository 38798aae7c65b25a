//! Watermarks: how far the standby has copied each map. They are stored in the standby, in a map
//! of their own.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::limit::within;
use crate::{
    batch::{Batch, BatchId, Change, Expect, MapBatch, Otherwise, WriterId},
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    load::Wanted,
    name::MapName,
    provider::Provider,
    record::{Payload, Record, Revision, Timestamp},
};

/// The map of the standby that holds the watermarks, by the names of the maps.
const WATERMARKS: &str = "failover/watermarks";

/// How far a map is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Watermark {
    /// The copy has every commit up to this one, by the numbers of the primary.
    pub(super) revision: Revision,
    /// The incarnation of the primary that assigned this number.
    pub(super) incarnation: Option<Incarnation>,
    /// The copy has every commit that was acknowledged before this time. `None` while the map
    /// is copied for the first time: then it has no complete copy.
    pub(super) copied_at: Option<Timestamp>,
}

impl Watermark {
    pub(super) fn new(
        revision: Revision,
        incarnation: Option<Incarnation>,
        copied_at: SystemTime,
    ) -> Self {
        Self {
            revision,
            incarnation,
            copied_at: Some(Timestamp::of(copied_at)),
        }
    }

    fn parse(record: &Record) -> Result<Self> {
        let text = record.value.as_ref().map(|value| &*value.bytes);
        serde_json::from_slice(text.unwrap_or_default()).map_err(|cause| {
            let message = format!(
                "the map {WATERMARKS:?} of the standby has an entry that is no watermark; remove \
                 that entry, and its map is copied again"
            );
            let error = Error::new(ErrorKind::Corrupt, message).with_source(cause);
            error.on_map(&record.key)
        })
    }

    fn payload(&self) -> Result<Payload> {
        let text = serde_json::to_vec(self).map_err(|cause| {
            let message = "a watermark could not be encoded";
            Error::new(ErrorKind::Invalid, message).with_source(cause)
        })?;
        Ok(Payload::json(text))
    }
}

/// A stored watermark, and the revision of its record in the standby.
type Stored = Option<(Watermark, Revision)>;

/// Reads the watermark of a map.
pub(super) async fn read(standby: &dyn Provider, map: &MapName) -> Result<Stored> {
    let keys = Wanted::Keys([Arc::from(map.as_str())].into());
    let load = standby.load(&MapName::parse(WATERMARKS)?, keys).await?;
    let records = load.into_records().await?;
    let stored = records.first().map(|record| {
        let watermark = Watermark::parse(record)?;
        Ok((watermark, record.revision))
    });
    stored.transpose()
}

/// Reads the names of the maps that have a complete copy.
pub(super) async fn complete(standby: &dyn Provider) -> Result<Vec<String>> {
    let load = standby
        .load(&MapName::parse(WATERMARKS)?, Wanted::All)
        .await?;
    let records = load.into_records().await?;
    let mut names = Vec::new();
    for record in &records {
        let is_complete = Watermark::parse(record)?.copied_at.is_some();
        names.extend(is_complete.then(|| record.key.to_string()));
    }
    Ok(names)
}

/// Commits to the standby: each commit moves the watermark of its map.
///
/// Each commit requires that the stored watermark is the one that this writer knows. So several
/// processes can copy to one standby: the slower one conflicts, and continues from the watermark
/// of the other. A commit that arrives late conflicts too, or is fenced by its number.
#[derive(Debug)]
pub(super) struct Copies {
    pub(super) standby: Arc<dyn Provider>,
    pub(super) limit: Duration,
    writer: WriterId,
    sequence: u64,
    known: HashMap<MapName, (Watermark, Revision)>,
}

impl Copies {
    pub(super) fn new(standby: Arc<dyn Provider>, limit: Duration) -> Self {
        Self {
            standby,
            limit,
            writer: WriterId::random(),
            sequence: 0,
            known: HashMap::new(),
        }
    }

    /// The watermark of a map.
    pub(super) async fn watermark(&mut self, map: &MapName) -> Result<Option<Watermark>> {
        if let Some((known, _)) = self.known.get(map) {
            return Ok(Some(*known));
        }
        let Some(stored) = within(self.limit, read(&*self.standby, map)).await? else {
            return Ok(None);
        };
        self.known.insert(map.clone(), stored);
        Ok(Some(stored.0))
    }

    /// Applies changes to the copy of a map, and moves its watermark.
    ///
    /// # Errors
    ///
    /// `Conflict` if another process has moved the watermark meanwhile; otherwise those of the
    /// standby. The watermark is then read again, because it may have been moved or not.
    pub(super) async fn commit(&mut self, part: MapBatch, watermark: Watermark) -> Result<()> {
        // Unknown until the standby has answered, also if this future is dropped.
        let known = self.known.remove(&part.map);
        let expect = known.map_or(Expect::Absent, |(_, at)| Expect::At(at));
        let moved = Change::put(part.map.as_str(), watermark.payload()?, None)
            .expect(expect, Otherwise::Fail);
        let moved = MapBatch::new(MapName::parse(WATERMARKS)?, vec![moved]);
        let map = part.map.clone();
        let is_change = part.clear || !part.changes.is_empty();
        let parts = if is_change {
            vec![part, moved]
        } else {
            vec![moved]
        };
        // The copy's revisions exceed the primary's, so that they go on growing if the standby
        // is made the primary.
        let after = watermark.revision;
        let committed = if self.standby.capabilities().several_maps {
            self.send(parts, after).await?
        } else {
            // The watermark last: until then the copy claims less than it has.
            let mut committed = None;
            for part in parts {
                committed = self.send(vec![part], after).await?;
            }
            committed
        };
        if let Some(revision) = committed {
            self.known.insert(map, (watermark, revision));
        }
        Ok(())
    }

    async fn send(&mut self, parts: Vec<MapBatch>, after: Revision) -> Result<Option<Revision>> {
        self.sequence += 1;
        let id = BatchId::new(self.writer, self.sequence);
        let batch = Batch::new(id, after, SystemTime::now(), parts);
        let committed = within(self.limit, self.standby.commit(&batch)).await?;
        Ok(committed.revision)
    }
}
