//! The owner of a map: a row in the remote, which every drained batch moves forward.
//!
//! The row holds the token of the owner, and the number of the last entry of its journal that
//! the remote has. It is committed together with the entry, on the condition that it is as this
//! process knows it. So another owner fences this one, an attempt that arrives late changes
//! nothing, and an entry is applied once, however often it is sent and even if the remote has
//! forgotten its writer.

use std::{sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    batch::{Batch, BatchId, Change, Committed, Expect, MapBatch, Otherwise, WriterId},
    error::{Error, ErrorKind, Result},
    load::Wanted,
    name::MapName,
    provider::Provider,
    record::{Payload, Record, Revision},
};

/// The map beside each map that holds the row. The name is reserved.
const BESIDE: &str = "journal-owner";

/// The key of the row.
const KEY: &str = "owner";

/// The owner of a map, and the last entry of its journal that the remote has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) token: WriterId,
    pub(super) number: u64,
}

/// The row, as this process knows it; `None` if the remote has no row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row(pub(super) Option<(Owner, Revision)>);

/// The map that holds the row of a map.
pub(super) fn beside(map: &MapName) -> Result<MapName> {
    map.nested(BESIDE)
}

/// Whether the map holds the row of another one.
pub(super) fn is_beside(map: &MapName) -> bool {
    map.as_str().split('/').next_back() == Some(BESIDE)
}

impl Row {
    /// Reads the row from the remote.
    pub(super) async fn read(remote: &dyn Provider, map: &MapName) -> Result<Self> {
        let keys: Arc<[Arc<str>]> = [Arc::from(KEY)].into();
        let load = remote.load(&beside(map)?, Wanted::Keys(keys)).await?;
        let records = load.into_records().await?;
        records.first().map(Self::of).transpose().map(Self)
    }

    fn of(record: &Record) -> Result<(Owner, Revision)> {
        let payload = record.value.as_ref();
        let owner = payload.map(|payload| serde_json::from_slice(&payload.bytes));
        let owner = owner.transpose().map_err(|error| {
            let message = "the row that names the owner of the journal is not readable";
            Error::new(ErrorKind::Corrupt, message).with_source(error)
        })?;
        let owner = owner.ok_or_else(|| {
            let message = "the row that names the owner of the journal has no value";
            Error::new(ErrorKind::Corrupt, message)
        })?;
        Ok((owner, record.revision))
    }

    fn revision(self) -> Option<Revision> {
        self.0.map(|(_, revision)| revision)
    }

    /// The part of a batch that sets the row, if it is still as known.
    pub(super) fn part(self, map: &MapName, owner: Owner) -> Result<MapBatch> {
        let Owner { token, number } = owner;
        let text = format!("{{\"token\": \"{token}\", \"number\": {number}}}");
        let expect = self.revision().map_or(Expect::Absent, Expect::At);
        let change = Change::put(KEY, Payload::json(text), None).expect(expect, Otherwise::Fail);
        Ok(MapBatch::new(beside(map)?, vec![change]))
    }

    /// Commits the row, and changes of the map with it, as a writer of its own.
    pub(super) async fn put(
        self,
        remote: &dyn Provider,
        map: &MapName,
        owner: Owner,
        with: Option<(MapBatch, SystemTime)>,
    ) -> Result<Self> {
        let (part, at) = with.unzip();
        let parts = part.into_iter().chain([self.part(map, owner)?]).collect();
        let batch = self.batch(parts, at.unwrap_or_else(SystemTime::now));
        Self::set_by(&remote.commit(&batch).await?, owner)
    }

    /// Fails as `Conflict` if the row is not as known. A load may come from a copy that lags
    /// behind; a commit does not.
    pub(super) async fn confirm(self, remote: &dyn Provider, map: &MapName) -> Result<()> {
        if let Some((owner, _)) = self.0 {
            return self.put(remote, map, owner, None).await.map(drop);
        }
        let absent = Change::delete(KEY).expect(Expect::Absent, Otherwise::Fail);
        let parts = vec![MapBatch::new(beside(map)?, vec![absent])];
        let batch = self.batch(parts, SystemTime::now());
        remote.commit(&batch).await.map(drop)
    }

    /// A batch of a new writer, so it is never taken for the repeat of another one.
    fn batch(self, parts: Vec<MapBatch>, at: SystemTime) -> Batch {
        let id = BatchId::new(WriterId::random(), 1);
        Batch::new(id, self.revision().unwrap_or_default(), at, parts)
    }

    /// The row after a commit that set it.
    pub(super) fn set_by(committed: &Committed, owner: Owner) -> Result<Self> {
        let revision = committed.revision.ok_or_else(|| {
            let message = "a journal needs a remote that acknowledges a commit once it is applied";
            Error::new(ErrorKind::Unsupported, message).outcome_unknown()
        })?;
        Ok(Self(Some((owner, revision))))
    }

    /// Whether a commit with that answer has just set the row. The answer to a batch that the
    /// remote had applied before has a revision that is not above the known one.
    pub(super) fn is_before(self, committed: &Committed) -> bool {
        self.revision() < committed.revision
    }
}
