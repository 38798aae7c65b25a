//! Tombstones: records of deletions, for readers that follow the changes of a map.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    load::Load,
    record::{Deletion, Record, Revision, Timestamp},
};

/// How long tombstones are kept by default: one day. A reader that was away for longer loads
/// the whole map again.
pub const TOMBSTONES_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The tombstones of one map, for stores that hold them in memory.
///
/// A store calls [`put`](Self::put), [`delete`](Self::delete) and [`clear`](Self::clear)
/// with each commit, and [`prune`](Self::prune) after it. It keeps them together with
/// the records: a reader must not see the one without the other. It may keep them as
/// text, with serde.
///
/// A tombstone takes about 150 bytes of memory and its key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tombstones {
    by_key: BTreeMap<Arc<str>, Tombstone>,
    /// The lower bound of the times of all tombstones.
    oldest: Option<Timestamp>,
    /// The last commit that cleared the map.
    cleared: Option<Revision>,
    /// The last commit whose tombstones were pruned.
    pruned_to: Option<Revision>,
}

/// The revision, the time and the deletion. It is serialized as a list, which is shorter.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Tombstone(Revision, Option<Timestamp>, Option<Deletion>);

impl Tombstone {
    fn record(self, key: &Arc<str>) -> Record {
        let Self(revision, at, deletion) = self;
        let mut record = Record::new(key.clone(), None, revision);
        record.deletion = deletion;
        record.with_updated_at(at.and_then(Timestamp::time))
    }
}

impl Tombstones {
    /// Creates an empty set of tombstones.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of tombstones.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Removes the tombstone of a key that was put again.
    pub fn put(&mut self, key: &str) {
        self.by_key.remove(key);
    }

    /// Adds the tombstone of a deleted entry. Its time is truncated to milliseconds.
    pub fn delete(&mut self, tombstone: Record) {
        let at = tombstone.updated_at.map(Timestamp::of);
        self.oldest = self.oldest.into_iter().chain(at).min();
        let kept = Tombstone(tombstone.revision, at, tombstone.deletion);
        self.by_key.insert(tombstone.key, kept);
    }

    /// Records that the commit cleared the map. This is a single revision; it replaces all
    /// tombstones.
    pub fn clear(&mut self, revision: Revision) {
        self.by_key.clear();
        self.oldest = None;
        self.cleared = Some(revision);
    }

    /// Records that deletions up to that commit are unknown, for example because another
    /// program changed the store: readers from before it load the whole map again.
    pub fn forget(&mut self, last: Revision) {
        self.by_key.retain(|_, tombstone| tombstone.0 > last);
        self.pruned_to = self.pruned_to.max(Some(last));
    }

    /// Removes tombstones that are older than `keep`. It removes whole commits, the oldest
    /// first, up to the last one that is old enough.
    ///
    /// A call is O(1) unless the oldest tombstone is older than `keep` and a sixteenth of it.
    /// Then it is O(n), but there is no other such call for another sixteenth.
    pub fn prune(&mut self, now: SystemTime, keep: Duration) {
        let age = |at: Timestamp| at.time().and_then(|at| now.duration_since(at).ok());
        let is_due = self.oldest.and_then(age);
        if is_due.is_none_or(|age| age < keep.saturating_add(keep / 16)) {
            return;
        }
        let is_old = |tombstone: &&Tombstone| tombstone.1.and_then(age) >= Some(keep);
        let old = self.by_key.values().filter(is_old);
        if let Some(last) = old.map(|tombstone| tombstone.0).max() {
            self.forget(last);
        }
        self.oldest = self.by_key.values().filter_map(|left| left.1).min();
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
        let written = written.filter(|record| record.revision > after);
        let deleted = self.by_key.iter().filter(|(_, deleted)| deleted.0 > after);
        let deleted = deleted.map(|(key, deleted)| deleted.record(key));
        let records = match pruned_to {
            Some(_) => Vec::new(),
            None => written.cloned().chain(deleted).collect(),
        };
        Load::of_changes(after, limit, last, records)
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

    #[test]
    fn tombstones_read_from_text_are_told_and_pruned_as_before() {
        let mut tombstones = Tombstones::new();
        for (key, revision) in [("a", 1), ("b", 2), ("c", 30)] {
            tombstones.delete(deleted(key, revision));
        }
        tombstones.put("b");
        let text = serde_json::to_string(&tombstones).unwrap();
        let mut read: Tombstones = serde_json::from_str(&text).unwrap();
        let changes = |of: &Tombstones| {
            let load = of.changes(std::iter::empty(), Revision::ZERO, 9, Revision::new(30));
            let records = futures_util::FutureExt::now_or_never(load.into_records());
            records.unwrap().unwrap()
        };
        assert_eq!(changes(&read), [deleted("a", 1), deleted("c", 30)]);
        assert_eq!(changes(&read), changes(&tombstones));
        read.prune(at(31), Duration::from_secs(10));
        assert_eq!((read.len(), read.pruned_to), (1, Some(Revision::new(1))));
    }

    /// Story: every commit looked at all tombstones of the last day.
    #[test]
    fn a_prune_is_not_due_again_before_a_sixteenth_of_the_time() {
        let mut tombstones = Tombstones::new();
        for second in 1..=100 {
            tombstones.delete(deleted(&second.to_string(), second));
        }
        let keep = Duration::from_secs(32);
        for (now, left) in [(34, 100), (35, 97), (36, 97), (37, 97), (38, 94), (99, 33)] {
            tombstones.prune(at(now), keep);
            assert_eq!(tombstones.len(), left, "{now}");
        }
        // A tombstone that was removed by a put does not delay the others.
        tombstones.put("68");
        tombstones.prune(at(103), keep);
        assert_eq!(tombstones.oldest, Some(Timestamp::of(at(72))));
    }

    #[test]
    fn readers_from_before_unknown_deletions_load_all() {
        let mut tombstones = Tombstones::new();
        tombstones.delete(deleted("a", 3));
        tombstones.forget(Revision::new(5));
        tombstones.delete(deleted("b", 6));
        let pruned = |after| {
            let none = std::iter::empty();
            let load = tombstones.changes(none, Revision::new(after), 9, Revision::new(6));
            (load.pruned_to, load.total_hint)
        };
        assert_eq!(pruned(4), (Some(Revision::new(5)), Some(0)));
        assert_eq!(pruned(5), (None, Some(1)));
    }
}
