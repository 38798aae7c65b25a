//! The stored document: all maps in one JSON value.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use persistify::{
    Batch, Committed, Error, Incarnation, MapName, Record, Result, Revision,
    ledger::{self, Admission, Writers},
};
use serde::{Deserialize, Serialize};

/// The maps, and the deduplication state that the contract requires. Both are
/// replaced together.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) revision: Revision,
    pub(crate) incarnation: Option<Incarnation>,
    writers: Writers,
    pub(crate) maps: BTreeMap<MapName, BTreeMap<Arc<str>, Record>>,
}

impl Document {
    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<Committed> {
        let last = |writer| self.writers.sequence_of(writer);
        let answer = match ledger::admit(batch, self.incarnation, last) {
            Admission::Apply => self.apply(batch)?,
            Admission::Repeat => self.writers.answer_to(batch.id.writer),
            Admission::Refuse(error) => return Err(error),
            Admission::Renew(incarnation, error) => {
                self.incarnation = Some(incarnation);
                return Err(error);
            }
        };
        Ok(answer.with_incarnation(self.incarnation))
    }

    fn apply(&mut self, batch: &Batch) -> Result<Committed> {
        // Checked before the first change, so that a conflict changes nothing.
        let skipped = ledger::check_conditions(batch, |map, key| {
            let records = self.maps.get(map);
            Ok::<_, Error>(records.and_then(|records| records.get(key)).cloned())
        })?;
        self.revision = batch.revision_after(self.revision);
        self.incarnation.get_or_insert_with(Incarnation::random);
        for part in batch.maps.iter() {
            let records = self.maps.entry(part.map.clone()).or_default();
            if part.clear {
                records.clear();
            }
            for change in ledger::applied(part, &skipped) {
                let stored = || records.get(&change.key).cloned();
                match change.apply(stored, batch.at, self.revision) {
                    Some(record) => records.insert(change.key.clone(), record),
                    None => records.remove(&change.key),
                };
            }
        }
        let answer = Committed::at(self.revision).with_skipped(skipped);
        let now = SystemTime::now();
        self.writers.remember(batch.id, now, answer.clone());
        Ok(answer)
    }
}
