//! A model of a map: a simple store to compare the provider with.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    batch::{Batch, Change, MapBatch, Op, Skipped},
    load::Wanted,
    record::{Record, Revision},
};

/// The expected contents of a map.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) records: BTreeMap<Arc<str>, Record>,
    /// The last commit that touched the map.
    pub(super) last: Revision,
}

impl Model {
    /// Applies a batch with the revision of its commit.
    pub(super) fn apply(
        &mut self,
        part: &MapBatch,
        batch: &Batch,
        revision: Revision,
        skipped: &[Skipped],
    ) {
        self.last = revision;
        if part.clear {
            self.records.clear();
        }
        let skips = |change: &Change| {
            let same = |s: &Skipped| s.map == part.map && s.key == change.key;
            skipped.iter().any(same)
        };
        for change in part.changes.iter().filter(|change| !skips(change)) {
            self.change(change, batch, revision);
        }
    }

    fn change(&mut self, change: &Change, batch: &Batch, revision: Revision) {
        let key = Arc::clone(&change.key);
        match &change.op {
            Op::Put {
                payload,
                expires_at,
            } => {
                let record = Record::new(Arc::clone(&key), Some(payload.clone()), revision)
                    .with_expires_at(*expires_at)
                    .with_updated_at(Some(change.written_at.unwrap_or(batch.at)));
                self.records.insert(key, record);
            }
            Op::Touch { expires_at } => {
                self.records.entry(key).and_modify(|record| {
                    record.expires_at = *expires_at;
                    record.revision = revision;
                });
            }
            Op::Delete => {
                self.records.remove(&key);
            }
        }
    }

    /// The expected records of a load, sorted by key.
    pub(super) fn wanted(&self, wanted: &Wanted) -> BTreeMap<Arc<str>, Record> {
        let is_wanted = |record: &&Record| match wanted {
            Wanted::All => true,
            Wanted::Keys(keys) => keys.contains(&record.key),
            Wanted::Page { after, .. } => Some(&record.key) > after.as_ref(),
            Wanted::Changed { after, .. } => record.revision > *after,
        };
        let limit = match wanted {
            Wanted::Page { limit, .. } => *limit,
            _ => usize::MAX,
        };
        let records = self.records.values().filter(is_wanted).take(limit);
        records.map(|r| (Arc::clone(&r.key), r.clone())).collect()
    }
}
