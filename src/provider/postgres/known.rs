//! Maps that were written to before, and by whom: a batch that comes next can
//! do without a look at them.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use super::place::Place;
use crate::{
    batch::{Batch, BatchId, Committed, Expect, MapBatch},
    name::MapName,
};

/// What the last commit to each map has left.
#[derive(Default)]
pub(super) struct Known {
    maps: Mutex<HashMap<MapName, Last>>,
    shared: Mutex<HashSet<MapName>>,
}

struct Last {
    place: Place,
    batch: BatchId,
}

impl Known {
    /// Where the map of this batch is, if the batch may be written without a
    /// look: there are no conditions, and the batch before it was the last of
    /// the same writer and came through.
    ///
    /// It is forgotten until this one has come through as well: after anything
    /// else the next one looks.
    pub(super) fn take(&self, batch: &Batch) -> Option<Place> {
        let part = only_part(batch)?;
        let last = self.maps.lock().remove(&part.map)?;
        let BatchId {
            writer, sequence, ..
        } = last.batch;
        let is_next = batch.id.writer == writer && batch.id.sequence > sequence;
        let is_plain = part.changes.iter().all(|c| c.expect == Expect::Any);
        let is_own = part
            .acknowledged
            .is_none_or(|last| last.id.writer == writer);
        (is_next && is_plain && is_own).then_some(last.place)
    }

    /// The batch was committed, to maps that are kept there.
    pub(super) fn note(&self, batch: &Batch, answer: &Committed, places: Vec<Place>) {
        let Ok([place]) = <[Place; 1]>::try_from(places) else {
            return;
        };
        // What was skipped is noted with the writer, and has to be cleared away;
        // what a trigger leaves out has to be looked for.
        if place.companion.is_none() && !place.is_meddled_with && answer.skipped.is_empty() {
            let batch = batch.id;
            let map = place.map.clone();
            self.maps.lock().insert(map, Last { place, batch });
        }
    }

    /// Somebody else adds entries to the map as well: what a writer takes for
    /// new may not be, and to find that out again each time would be slow.
    pub(super) fn note_shared(&self, map: &MapName) {
        self.shared.lock().insert(map.clone());
    }

    pub(super) fn is_shared(&self, map: &MapName) -> bool {
        self.shared.lock().contains(map)
    }
}

fn only_part(batch: &Batch) -> Option<&MapBatch> {
    match &*batch.maps {
        [part] => Some(part),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        batch::{Change, Otherwise, Skipped, WriterId},
        provider::postgres::{time::Time, values::ValueType},
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

    fn place(map: &str, companion: Option<&str>) -> Place {
        Place {
            id: 1,
            map: MapName::new(map).unwrap(),
            table: "t".to_owned(),
            companion: companion.map(str::to_owned),
            values: ValueType::Jsonb,
            time: Time::Zoned,
            revision: Revision::ZERO,
            is_meddled_with: false,
        }
    }

    fn plain(sequence: u64) -> Batch {
        batch(1, sequence, &[Change::delete("k")], &["m"])
    }

    /// After batch 5 of writer 1.
    fn after(answer: &Committed, places: Vec<Place>) -> Known {
        let known = Known::default();
        known.note(&plain(5), answer, places);
        known
    }

    fn well() -> Committed {
        Committed::at(Revision::new(9))
    }

    #[test]
    fn the_next_batch_of_the_writer_needs_no_look_and_what_comes_after_trouble_does() {
        let known = after(&well(), vec![place("m", None)]);
        assert!(known.take(&plain(6)).is_some());
        // Nobody said that it came through.
        assert!(known.take(&plain(7)).is_none());
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
            let known = after(&well(), vec![place("m", None)]);
            assert!(known.take(&other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn nothing_is_known_after_what_leaves_more_to_look_at() {
        let skipped = Skipped::new(MapName::new("m").unwrap(), "k".into(), None);
        let skipping = well().with_skipped(vec![skipped]);
        for known in [
            after(&skipping, vec![place("m", None)]),
            after(&well(), vec![place("m", Some("c"))]),
            after(&well(), vec![place("m", None), place("n", None)]),
        ] {
            assert!(known.take(&plain(6)).is_none());
        }
    }
}
