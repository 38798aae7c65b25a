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
    batch::{Batch, Expect, MapBatch, Otherwise, Skipped},
    error::{Error, Result},
    name::MapName,
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
        for part in batch.maps.iter() {
            let conditional = part.changes.iter().any(|c| c.expect != Expect::Any);
            let Some(place) = locked.place(&part.map).filter(|_| conditional) else {
                continue;
            };
            let found = if part.clear {
                Found::new()
            } else {
                self.find(lease, &place.table(options), part).await?
            };
            if let Some(conflict) = self.part(part, &found) {
                return Ok(Some(conflict));
            }
        }
        Ok(None)
    }

    /// What is stored of the keys that a condition is about.
    async fn find(
        &mut self,
        lease: &Lease,
        table: &Table,
        part: &'a MapBatch,
    ) -> Result<Found, Fault> {
        let conditional = part.changes.iter().filter(|c| c.expect != Expect::Any);
        let wanted = conditional.map(|change| &*change.key);
        let keys = table.keys(wanted.clone());
        adopted::hold(lease, table, &keys).await?;
        let revision = revision_to(self.revision)?;
        self.noted |= adopted::note(lease, table, Some(&keys), revision).await?;
        let found = read::some_keys(lease, table, keys, self.revision).await;
        let found = found.map_err(|fault| fault.on_map(&part.map))?;
        let by_key = found.into_iter().map(|record| (record.key.clone(), record));
        let found: Found = by_key.collect();
        if table.adopted.is_some() {
            let absent = wanted.filter(|key| !found.contains_key(*key)).collect();
            self.absent.insert(&part.map, absent);
        }
        Ok(found)
    }

    fn part(&mut self, part: &MapBatch, found: &Found) -> Option<Error> {
        let conditional = part.changes.iter().filter(|c| c.expect != Expect::Any);
        for change in conditional {
            let found = found.get(&change.key);
            let stored = found.map(|found| (found.revision, found.expires_at));
            if change.expect.holds(stored, self.batch.at) {
                continue;
            }
            match change.otherwise {
                Otherwise::Skip => {
                    let skipped =
                        Skipped::new(part.map.clone(), change.key.clone(), found.cloned());
                    self.skipped.push(skipped);
                }
                Otherwise::Fail => {
                    return Some(Error::conflict(&part.map, &change.key, found.cloned()));
                }
            }
        }
        None
    }
}
