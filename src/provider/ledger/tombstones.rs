//! Tombstones: what a store keeps of deletions, for readers that follow its changes.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    load::Load,
    record::{Record, Revision},
};

/// For how long tombstones are kept, unless a provider is told otherwise: a day. A reader
/// that is away for longer loads the whole map again.
pub const TOMBSTONES_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The tombstones of one map, for stores that hold them in memory.
///
/// A store calls [`put`](Self::put), [`delete`](Self::delete) and [`clear`](Self::clear)
/// with each commit, and [`prune`](Self::prune) now and then. It keeps them together with
/// the records: a reader must not see the one without the other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tombstones {
    by_key: BTreeMap<Arc<str>, Record>,
    /// The last commit that cleared the map.
    cleared: Option<Revision>,
    /// The last commit whose tombstones were pruned.
    pruned_to: Option<Revision>,
}

impl Tombstones {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key holds a value again.
    pub fn put(&mut self, key: &str) {
        self.by_key.remove(key);
    }

    /// The entry was deleted: this is its tombstone.
    pub fn delete(&mut self, tombstone: Record) {
        self.by_key.insert(tombstone.key.clone(), tombstone);
    }

    /// The map was cleared by that commit. That is told as one revision, and replaces all
    /// tombstones.
    pub fn clear(&mut self, revision: Revision) {
        self.by_key.clear();
        self.cleared = Some(revision);
    }

    /// Forgets tombstones that are older than that. Whole commits are forgotten, the oldest
    /// first: up to the last one that is old enough.
    pub fn prune(&mut self, now: SystemTime, keep: Duration) {
        let is_old = |record: &&Record| {
            let age = record.updated_at.and_then(|at| now.duration_since(at).ok());
            age.is_some_and(|age| age >= keep)
        };
        let old = self.by_key.values().filter(is_old);
        let Some(last) = old.map(|record| record.revision).max() else {
            return;
        };
        self.by_key.retain(|_, record| record.revision > last);
        self.pruned_to = self.pruned_to.max(Some(last));
    }

    /// The answer to a load of changes. `written` are the records of the map, in any order;
    /// `last` is the last commit.
    pub fn changes<'a>(
        &'a self,
        written: impl Iterator<Item = &'a Record>,
        after: Revision,
        limit: usize,
        last: Revision,
    ) -> Load<'static> {
        let pruned_to = self.pruned_to.filter(|pruned| *pruned > after);
        let is_new = |record: &&Record| record.revision > after && pruned_to.is_none();
        let records = written.chain(self.by_key.values()).filter(is_new);
        Load::of_changes(after, limit, last, records.cloned().collect())
            .with_cleared(self.cleared.filter(|cleared| *cleared > after))
            .with_pruned_to(pruned_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{record::Cause, record::Deletion, writer_id::WriterId};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn deleted(key: &str, revision: u64) -> Record {
        let deletion = Deletion::new(Cause::Removed, WriterId::new(1));
        Record::deleted(key, Revision::new(revision), deletion).with_updated_at(Some(at(revision)))
    }

    #[test]
    fn a_reader_that_needs_what_was_pruned_is_told_so() {
        let mut tombstones = Tombstones::new();
        for (key, revision) in [("a", 1), ("b", 2), ("c", 2), ("d", 3)] {
            tombstones.delete(deleted(key, revision));
        }
        tombstones.prune(at(12), Duration::from_secs(10));
        let load = |after| {
            let none = std::iter::empty();
            tombstones.changes(none, Revision::new(after), usize::MAX, Revision::new(9))
        };
        assert_eq!(load(1).pruned_to, Some(Revision::new(2)));
        assert_eq!(load(1).total_hint, Some(0));
        assert_eq!(load(2).pruned_to, None);
        assert_eq!(load(2).total_hint, Some(1));
    }

    #[test]
    fn a_clear_is_one_revision_and_no_tombstone_a_key() {
        let mut tombstones = Tombstones::new();
        tombstones.delete(deleted("a", 1));
        tombstones.clear(Revision::new(5));
        let none = std::iter::empty();
        let load = tombstones.changes(none, Revision::ZERO, 10, Revision::new(6));
        assert_eq!(
            (load.cleared, load.total_hint),
            (Some(Revision::new(5)), Some(0))
        );
        let none = std::iter::empty();
        let load = tombstones.changes(none, Revision::new(5), 10, Revision::new(6));
        assert_eq!(load.cleared, None);
    }
}
