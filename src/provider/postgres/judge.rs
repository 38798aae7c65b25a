//! The conditions of a batch, all of them looked at before the first change,
//! so that they see the state before the batch.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    adopted,
    connections::Lease,
    errors::Fault,
    locks::{Locked, set_revision},
    options::Options,
    read,
    table::Table,
    values::revision_to,
};
use crate::{
    batch::{Batch, Expect, MapBatch, Skipped},
    error::{Error, Result},
    name::MapName,
    provider::ledger,
    record::{Record, Revision},
};

/// What came of the conditions.
pub(super) struct Judge<'a> {
    batch: &'a Batch,
    /// For rows that another program turns out to have written.
    revision: Revision,
    /// Whether there were any.
    noted: bool,
    pub(super) skipped: Vec<Skipped>,
    /// What was not there, by map, where another program may add it before this
    /// batch does.
    pub(super) absent: HashMap<&'a MapName, HashSet<&'a str>>,
}

type Found = HashMap<Arc<str>, Record>;

impl<'a> Judge<'a> {
    /// Looks at all conditions.
    ///
    /// # Errors
    ///
    /// `Conflict`; what another program wrote keeps the revision that was just
    /// reported.
    pub(super) async fn all(
        lease: &Lease,
        options: &Options,
        batch: &'a Batch,
        locked: &Locked<'_>,
    ) -> Result<Self, Fault> {
        let mut judge = Self {
            batch,
            revision: batch.revision_after(locked.revision()),
            noted: false,
            skipped: Vec::new(),
            absent: HashMap::new(),
        };
        let conflict = judge.parts(lease, options, locked).await?;
        let Some(conflict) = conflict else {
            return Ok(judge);
        };
        if judge.noted {
            let raised = set_revision(options, locked, judge.revision)?;
            let end = format!("{raised}COMMIT");
            lease.answer(lease.client()?.batch_execute(&end)).await?;
        }
        Err(conflict.into())
    }

    /// The revision of the batch itself.
    pub(super) fn next_revision(&self) -> Revision {
        if self.noted {
            self.batch.revision_after(self.revision)
        } else {
            self.revision
        }
    }

    async fn parts(
        &mut self,
        lease: &Lease,
        options: &Options,
        locked: &Locked<'_>,
    ) -> Result<Option<Error>, Fault> {
        let batch = self.batch;
        let mut found = HashMap::new();
        for part in batch.maps.iter().filter(|part| !part.clear) {
            let is_conditional = ledger::conditional(part).next().is_some();
            if let Some(place) = locked.place(&part.map).filter(|_| is_conditional) {
                let records = self.find(lease, &place.table(options), part).await?;
                found.insert(part.map.clone(), records);
            }
        }
        let checked = ledger::check_conditions(batch, |map, key| {
            let records = found.get(map);
            Ok::<_, Error>(records.and_then(|records| records.get(key)).cloned())
        });
        match checked {
            Ok(skipped) => self.skipped = skipped,
            Err(conflict) => return Ok(Some(conflict)),
        }
        Ok(None)
    }

    /// The stored records that the conditions and groups of a part need.
    async fn find(
        &mut self,
        lease: &Lease,
        table: &Table,
        part: &'a MapBatch,
    ) -> Result<Found, Fault> {
        let wanted = ledger::conditional(part).map(|change| &*change.key);
        let keys = table.keys(wanted);
        adopted::hold(lease, table, &keys).await?;
        let revision = revision_to(self.revision)?;
        self.noted |= adopted::note(lease, table, Some(&keys), revision).await?;
        let found = read::some_keys(lease, table, keys, self.revision).await;
        let found = found.map_err(|fault| fault.on_map(&part.map))?;
        let by_key = found.into_iter().map(|record| (record.key.clone(), record));
        let found: Found = by_key.collect();
        if table.adopted.is_some() {
            let expecting = part.changes.iter().filter(|c| c.expect != Expect::Any);
            let keys = expecting.map(|change| &*change.key);
            let absent = keys.filter(|key| !found.contains_key(*key)).collect();
            self.absent.insert(&part.map, absent);
        }
        Ok(found)
    }
}
