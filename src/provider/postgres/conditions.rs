//! Reads the records that the conditions of a batch refer to.

use std::{collections::HashMap, sync::Arc};

use super::{
    adopted::Rows, errors::Failure, load, locks::Locked, options::Options, sessions::Session,
    table::Table,
};
use crate::{
    batch::{Batch, Expect, MapBatch},
    error::Result,
    name::MapName,
    provider::{ledger, sql::numbers::from_revision},
    record::{Record, Revision},
};

/// The stored records of the keys with a condition, before the first change of the
/// batch.
pub(super) struct Stored {
    /// By map and key; `None` for a key with a condition that has no record.
    records: HashMap<MapName, HashMap<Arc<str>, Option<Record>>>,
    /// The revision for rows that another program has written.
    pub(super) revision: Revision,
    /// Whether there were such rows.
    pub(super) noted: bool,
}

impl Stored {
    pub(super) async fn find(
        session: &Session,
        options: &Options,
        batch: &Batch,
        locked: &Locked,
    ) -> Result<Self, Failure> {
        let mut stored = Self {
            records: HashMap::new(),
            revision: batch.revision_after(locked.revision()),
            noted: false,
        };
        for part in batch.maps.iter().filter(|part| !part.clear) {
            let is_conditional = ledger::conditional(part).next().is_some();
            if let Some(entry) = locked.entry(&part.map).filter(|_| is_conditional) {
                let added = stored.add(session, &entry.table(options), part).await;
                added.map_err(|failure| failure.on_map(&part.map))?;
            }
        }
        Ok(stored)
    }

    async fn add(
        &mut self,
        session: &Session,
        table: &Table,
        part: &MapBatch,
    ) -> Result<(), Failure> {
        let conditional = ledger::conditional(part);
        let keys = table.keys(conditional.map(|change| &*change.key));
        if let Some(adopted) = &table.adopted {
            adopted.hold(session, table, &keys).await?;
            let rows = Rows::with_keys(table, keys.clone());
            let revision = from_revision(self.revision)?;
            self.noted |= adopted.note_new(session, &rows, revision).await?;
        }
        let found = load::some_keys(session, table, keys, self.revision).await?;
        let expecting = part.changes.iter().filter(|c| c.expect != Expect::Any);
        let absent = expecting.map(|change| (change.key.clone(), None));
        let found = found
            .into_iter()
            .map(|record| (record.key.clone(), Some(record)));
        let records = absent.chain(found).collect();
        self.records.insert(part.map.clone(), records);
        Ok(())
    }

    pub(super) fn get(&self, map: &MapName, key: &str) -> Option<&Record> {
        self.records.get(map)?.get(key)?.as_ref()
    }

    /// Whether a key has a condition but no record.
    pub(super) fn is_absent(&self, map: &MapName, key: &str) -> bool {
        let found = self.records.get(map).and_then(|records| records.get(key));
        matches!(found, Some(None))
    }

    /// The highest assigned revision.
    pub(super) fn last(&self, locked: &Locked) -> Revision {
        if self.noted {
            self.revision
        } else {
            locked.revision()
        }
    }
}
