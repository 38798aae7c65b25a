//! Remembers the last commit to each map, so that the next batch can be committed in a
//! single round trip.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use super::catalog::Entry;
use crate::{
    batch::{Batch, BatchId, Committed, Expect},
    name::MapName,
};

/// The last commit to each map through these handles.
#[derive(Default)]
pub(super) struct LastCommits {
    commits: Mutex<HashMap<MapName, (BatchId, Entry)>>,
    shared: Mutex<HashSet<MapName>>,
}

impl LastCommits {
    /// Takes the entry of the map of this batch, if the batch can be committed without
    /// reading from the server first: it has no conditions, and follows the last batch of
    /// the same writer, which was acknowledged.
    ///
    /// The entry is removed until this batch is acknowledged as well. After any other
    /// outcome, the next batch reads it from the server.
    pub(super) fn take(&self, batch: &Batch) -> Option<Entry> {
        let [part] = &*batch.maps else { return None };
        let (last, entry) = self.commits.lock().remove(&part.map)?;
        let is_next = batch.id.writer == last.writer && batch.id.sequence > last.sequence;
        let is_plain = part.changes.iter().all(|c| c.expect == Expect::Any);
        let acknowledged = part.acknowledged.map(|last| last.id.writer);
        let is_own = acknowledged.is_none_or(|writer| writer == last.writer);
        (is_next && is_plain && is_own).then_some(entry)
    }

    /// Records that the batch was committed, to maps with these entries.
    pub(super) fn note(&self, batch: &Batch, answer: &Committed, entries: Vec<Entry>) {
        let Ok([entry]) = <[Entry; 1]>::try_from(entries) else {
            return;
        };
        // Skipped changes are stored with the writer and must be deleted; changes that a
        // trigger may ignore must be checked.
        if entry.companion.is_none() && !entry.has_triggers && answer.skipped.is_empty() {
            let map = entry.map.clone();
            self.commits.lock().insert(map, (batch.id, entry));
        }
    }

    /// Records that other processes add entries to the map too: entries that the writer
    /// considers new may exist, and a failed insert for each of them would be slow.
    pub(super) fn note_shared(&self, map: &MapName) {
        self.shared.lock().insert(map.clone());
    }

    pub(super) fn is_shared(&self, map: &MapName) -> bool {
        self.shared.lock().contains(map)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        batch::{Change, MapBatch, Otherwise, Skipped, WriterId},
        provider::postgres::{times::Time, values::ValueType},
        record::Revision,
    };

    fn batch(writer: u128, sequence: u64, changes: &[Change], maps: &[&str]) -> Batch {
        let parts = maps
            .iter()
            .map(|map| MapBatch::new(MapName::new(map).unwrap(), changes.to_vec()));
        let id = BatchId::new(WriterId::new(writer), sequence);
        Batch::new(
            id,
            Revision::ZERO,
            SystemTime::now(),
            parts.collect::<Vec<_>>(),
        )
    }

    fn entry(map: &str, companion: Option<&str>) -> Entry {
        Entry {
            id: 1,
            map: MapName::new(map).unwrap(),
            table: "t".to_owned(),
            companion: companion.map(str::to_owned),
            values: ValueType::Jsonb,
            time: Time::Zoned,
            revision: Revision::ZERO,
            has_triggers: false,
        }
    }

    fn plain(sequence: u64) -> Batch {
        batch(1, sequence, &[Change::delete("k")], &["m"])
    }

    /// After batch 5 of writer 1.
    fn after(answer: &Committed, entries: Vec<Entry>) -> LastCommits {
        let commits = LastCommits::default();
        commits.note(&plain(5), answer, entries);
        commits
    }

    fn well() -> Committed {
        Committed::at(Revision::new(9))
    }

    #[test]
    fn the_next_batch_of_the_writer_needs_no_look_and_what_comes_after_trouble_does() {
        let commits = after(&well(), vec![entry("m", None)]);
        assert!(commits.take(&plain(6)).is_some());
        // The previous batch was not acknowledged.
        assert!(commits.take(&plain(7)).is_none());
    }

    #[test]
    fn a_repeat_a_stranger_and_a_condition_need_a_look() {
        let delete = || Change::delete("k");
        let expecting = delete().expect(Expect::Absent, Otherwise::Fail);
        for other in [
            plain(5),
            plain(4),
            batch(2, 6, &[delete()], &["m"]),
            batch(1, 6, &[delete(), expecting], &["m"]),
            batch(1, 6, &[delete()], &["other"]),
            batch(1, 6, &[delete()], &["m", "other"]),
        ] {
            let commits = after(&well(), vec![entry("m", None)]);
            assert!(commits.take(&other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn nothing_is_known_after_what_leaves_more_to_look_at() {
        let skipped = Skipped::new(MapName::new("m").unwrap(), "k".into(), None);
        let skipping = well().with_skipped(vec![skipped]);
        for commits in [
            after(&skipping, vec![entry("m", None)]),
            after(&well(), vec![entry("m", Some("c"))]),
            after(&well(), vec![entry("m", None), entry("n", None)]),
        ] {
            assert!(commits.take(&plain(6)).is_none());
        }
    }
}
