//! Encrypts all values of a map with the current key.

use std::{sync::Arc, time::SystemTime};

use super::{
    Encrypted,
    sealing::{self, Sealed},
};
use crate::{
    batch::{Batch, BatchId, Change, Committed, Expect, MapBatch, Otherwise, WriterId},
    error::{Error, ErrorKind, Result},
    layer::{
        Layer,
        transform::{Decoded, Transform},
    },
    load::Wanted,
    name::MapName,
    provider::Provider,
    record::{Payload, Record, Revision},
};

/// The number of records that are read, and then rewritten in one commit.
const PAGE: usize = 250;

/// The result of [`Encrypted::rewrite_with_current_key`], in numbers of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewritten {
    /// Records that are now encrypted with the current key.
    pub rewritten: u64,
    /// Records that were encrypted with it already.
    pub current: u64,
    /// Records that another writer has changed meanwhile. They may be encrypted with the key of
    /// that writer.
    pub skipped: u64,
    /// Damaged records, which are left as they are.
    pub unreadable: u64,
}

impl<P: Provider> Encrypted<P> {
    /// Encrypts the values of a map that are encrypted with older keys, or not at all if
    /// [`allow_plain`](Encrypted::allow_plain) is set, with the current key. Schema version,
    /// expiry and time of writing are kept. Reads 250 records at a time.
    ///
    /// Afterwards the older keys are no longer needed if `skipped` and `unreadable` are 0, no
    /// process encrypts with them, and the map `<map>/unreadable` (see
    /// [`maps`](Provider::maps)) was rewritten too.
    ///
    /// The map may be open, here and elsewhere. A record that another writer changes meanwhile
    /// is skipped. A map that [checks for conflicts](crate::Builder::conflicts) takes a rewritten
    /// record for another process's write; rewrite its records while it is closed.
    ///
    /// Each page is rewritten in one commit. If the future is dropped, or after an error or a
    /// crash, some pages are rewritten. Call it again to continue: records that are encrypted with
    /// the current key are only read.
    ///
    /// # Errors
    ///
    /// Those of [`load`](Provider::load) and [`commit`](Provider::commit), and `Unsupported` if
    /// the provider has no [conditions](crate::Capabilities::conditions).
    pub async fn rewrite_with_current_key(&self, map: &MapName) -> Result<Rewritten> {
        if !self.inner.capabilities().conditions {
            let message =
                "a provider without conditions cannot rewrite values beside other writers";
            return Err(Error::new(ErrorKind::Unsupported, message).on_map(map));
        }
        let mut counts = Rewritten::default();
        let mut writer = Rewriter::new(map);
        let mut last = None;
        loop {
            let records = self.page(map, last).await?;
            let Some(end) = records.last().map(|record| record.key.clone()) else {
                return Ok(counts);
            };
            let changes = self.changes(map, records, &mut counts)?;
            if !changes.is_empty() {
                let written = changes.len() as u64;
                let committed = Layer::commit(self, &writer.batch(changes)).await?;
                writer.after(&committed);
                let skipped = committed.skipped.len() as u64;
                counts.skipped += skipped;
                counts.rewritten += written - skipped;
            }
            last = Some(end);
        }
    }

    /// The stored records after a key. The load has ended when this returns, so the commit
    /// does not wait for its connection or lock.
    async fn page(&self, map: &MapName, last: Option<Arc<str>>) -> Result<Vec<Record>> {
        self.check()?;
        let load = self.inner.load(map, Wanted::page(last, PAGE)).await?;
        let mut records = load.into_records().await?;
        // The order is that of the page, but a provider may stream it in any order.
        records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(records)
    }

    /// The changes that replace values that are not encrypted with the current key.
    fn changes(
        &self,
        map: &MapName,
        records: Vec<Record>,
        counts: &mut Rewritten,
    ) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for record in records {
            let value = self.outdated(map, &record, counts);
            let value = value.map_err(|error| error.on_map(map).on_keys([record.key.clone()]))?;
            changes.extend(value.map(|value| {
                let put = Change::put(record.key, value, record.expires_at);
                let put = put.written_at(record.updated_at);
                // The write of another writer since the page was read wins.
                put.expect(Expect::At(record.revision), Otherwise::Skip)
            }));
        }
        Ok(changes)
    }

    /// The value of a record that is not encrypted with the current key.
    fn outdated(
        &self,
        map: &MapName,
        record: &Record,
        counts: &mut Rewritten,
    ) -> Result<Option<Payload>> {
        let Some(stored) = &record.value else {
            return Ok(None);
        };
        let keys = self.shared.keys();
        if let Sealed::By(key, _) = sealing::inspect(&keys, stored)? {
            if key.id == keys.current_key().id {
                counts.current += 1;
                return Ok(None);
            }
        }
        match self.shared.decode(map, &record.key, stored)? {
            Decoded::Value(value) => Ok(Some(value)),
            Decoded::Unchanged => Ok(Some(stored.clone())),
            Decoded::Damaged => {
                counts.unreadable += 1;
                Ok(None)
            }
        }
    }
}

/// The writer of the batches.
struct Rewriter<'a> {
    map: &'a MapName,
    id: BatchId,
    after: Revision,
}

impl<'a> Rewriter<'a> {
    fn new(map: &'a MapName) -> Self {
        Self {
            map,
            id: BatchId::new(WriterId::random(), 0),
            after: Revision::ZERO,
        }
    }

    fn batch(&mut self, changes: Vec<Change>) -> Batch {
        self.id.sequence += 1;
        let part = MapBatch::new(self.map.clone(), changes);
        Batch::new(self.id, self.after, SystemTime::now(), [part]).divisible(true)
    }

    fn after(&mut self, committed: &Committed) {
        self.after = self.after.max(committed.revision.unwrap_or_default());
    }
}
