//! Conditions and groups, and the changes that are skipped because of them.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use crate::{
    batch::{Batch, Change, Expect, MapBatch, Otherwise, Skipped},
    error::Error,
    name::MapName,
    record::{Record, Revision},
};

/// A stored record, or a placeholder for one that is read on demand.
pub trait StoredRecord<E> {
    /// The record's revision and expiry.
    fn version(&self) -> (Revision, Option<SystemTime>);

    /// Returns the record itself. It is called only for records in the answer.
    ///
    /// # Errors
    ///
    /// Those of the store.
    fn into_record(self) -> Result<Record, E>;
}

impl<E> StoredRecord<E> for Record {
    fn version(&self) -> (Revision, Option<SystemTime>) {
        (self.revision, self.expires_at)
    }

    fn into_record(self) -> Result<Record, E> {
        Ok(self)
    }
}

/// Checks all conditions of a batch against the store as it is before the
/// batch, and returns the changes to skip, in the order of the changes: those
/// whose condition does not hold, and all others of their
/// [groups](Change::group).
///
/// `stored` looks up the record of a key. It is called only for
/// [`conditional`] changes, and not for a part that clears its map first: that
/// part finds the map empty. The store must not change between this and the
/// commit.
///
/// # Errors
///
/// [`Conflict`](crate::ErrorKind::Conflict) for the first condition that does
/// not hold and is not to be skipped, and the errors of `stored`.
pub fn check_conditions<F: StoredRecord<E>, E: From<Error>>(
    batch: &Batch,
    mut stored: impl FnMut(&MapName, &Arc<str>) -> Result<Option<F>, E>,
) -> Result<Vec<Skipped>, E> {
    let mut find = |part: &MapBatch, change: &Change| {
        if part.clear {
            return Ok(None);
        }
        stored(&part.map, &change.key)
    };
    let (mut skipped, mut failed_groups) = (Vec::new(), HashSet::new());
    for part in batch.maps.iter() {
        for change in part.changes.iter().filter(|c| c.expect != Expect::Any) {
            let found = find(part, change)?;
            let seen = found.as_ref().map(StoredRecord::version);
            if change.expect.holds(seen, batch.at) {
                continue;
            }
            let found = found.map(StoredRecord::into_record).transpose()?;
            if change.otherwise == Otherwise::Fail {
                return Err(Error::conflict(&part.map, &change.key, found).into());
            }
            failed_groups.extend(change.group);
            skipped.push(Skipped::new(part.map.clone(), change.key.clone(), found));
        }
    }
    if failed_groups.is_empty() {
        return Ok(skipped);
    }
    with_groups(batch, skipped, &failed_groups, find)
}

/// Adds the other changes of these groups to the skipped ones.
fn with_groups<F: StoredRecord<E>, E>(
    batch: &Batch,
    skipped: Vec<Skipped>,
    groups: &HashSet<u32>,
    mut find: impl FnMut(&MapBatch, &Change) -> Result<Option<F>, E>,
) -> Result<Vec<Skipped>, E> {
    let (mut alone, mut all) = (skipped.into_iter().peekable(), Vec::new());
    for part in batch.maps.iter() {
        for change in &part.changes {
            let is_this = |skipped: &Skipped| skipped.key == change.key && skipped.map == part.map;
            if let Some(known) = alone.next_if(is_this) {
                all.push(known);
            } else if change.group.is_some_and(|group| groups.contains(&group)) {
                let found = find(part, change)?
                    .map(StoredRecord::into_record)
                    .transpose()?;
                all.push(Skipped::new(part.map.clone(), change.key.clone(), found));
            }
        }
    }
    Ok(all)
}

/// The changes whose records [`check_conditions`] may look up: those with a condition, and
/// those in a group. A store that reads records in advance reads these.
pub fn conditional(part: &MapBatch) -> impl Iterator<Item = &Change> {
    let changes = part.changes.iter();
    changes.filter(|change| change.expect != Expect::Any || change.group.is_some())
}

/// The changes of a part without the skipped ones.
pub fn applied<'a>(part: &'a MapBatch, skipped: &[Skipped]) -> impl Iterator<Item = &'a Change> {
    // Skipped changes are in the order of the changes, so one pass over both finds them.
    let skipped = skipped.iter().filter(|skipped| skipped.map == part.map);
    let mut skipped = skipped.peekable();
    let changes = part.changes.iter();
    changes.filter(move |change| skipped.next_if(|s| s.key == change.key).is_none())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        batch::{BatchId, WriterId},
        error::{ErrorKind, Result},
        record::Payload,
    };

    type Stored = BTreeMap<(MapName, Arc<str>), Record>;

    fn name(map: &str) -> MapName {
        MapName::new(map).unwrap()
    }

    /// A key of the map `a` or `b`: `ax` is the key `x` of the map `a`.
    fn stored(keys: &[&str]) -> Stored {
        let record = |key: &&str| {
            let (map, key) = key.split_at(1);
            let record = Record::new(key, Some(Payload::json("1")), Revision::new(1));
            ((name(map), key.into()), record)
        };
        keys.iter().map(record).collect()
    }

    fn put(key: &str) -> Change {
        Change::put(key, Payload::json("2"), None)
    }

    fn absent(key: &str) -> Change {
        put(key).expect(Expect::Absent, Otherwise::Skip)
    }

    fn batch(a: Vec<Change>, b: Vec<Change>) -> Batch {
        let parts = [("a", a), ("b", b)].map(|(map, changes)| MapBatch::new(name(map), changes));
        let id = BatchId::new(WriterId::new(1), 1);
        Batch::new(id, Revision::ZERO, SystemTime::UNIX_EPOCH, parts)
    }

    fn skipped(batch: &Batch, stored: &Stored) -> Result<Vec<String>> {
        let find = |map: &MapName, key: &Arc<str>| {
            Ok::<_, Error>(stored.get(&(map.clone(), key.clone())).cloned())
        };
        let skipped = check_conditions(batch, find)?;
        let named = skipped.iter().map(|skipped| {
            let found = skipped.found.as_ref().map_or("", |_| "!");
            format!("{}{}{found}", skipped.map, skipped.key)
        });
        let mut left: Vec<_> = batch
            .maps
            .iter()
            .flat_map(|part| applied(part, &skipped))
            .collect();
        left.retain(|change| skipped.iter().any(|s| s.key == change.key));
        assert!(left.is_empty(), "{left:?} is skipped and applied");
        Ok(named.collect())
    }

    #[test]
    fn a_condition_that_fails_skips_its_group_in_all_maps_and_nothing_else() {
        let batch = batch(
            vec![
                put("p").in_group(1),
                absent("q").in_group(1),
                absent("r").in_group(2),
            ],
            vec![
                put("s"),
                put("t").in_group(1),
                absent("u"),
                put("v").in_group(2),
            ],
        );
        for (keys, expected) in [
            (&[][..], &[][..]),
            (&["aq"], &["ap", "aq!", "bt"]),
            (&["aq", "ap", "bt"], &["ap!", "aq!", "bt!"]),
            (&["ar"], &["ar!", "bv"]),
            (&["bu"], &["bu!"]),
            (
                &["aq", "ar", "bu"],
                &["ap", "aq!", "ar!", "bt", "bu!", "bv"],
            ),
        ] {
            assert_eq!(
                skipped(&batch, &stored(keys)).unwrap(),
                expected,
                "{keys:?}"
            );
        }
    }

    #[test]
    fn a_condition_that_must_hold_fails_the_batch_also_in_a_skipped_group() {
        let must = put("z").expect(Expect::Present, Otherwise::Fail);
        let batch = batch(vec![absent("q").in_group(1)], vec![must.in_group(1)]);
        let error = skipped(&batch, &stored(&["aq"])).unwrap_err();
        assert_eq!(
            (error.kind(), error.map()),
            (ErrorKind::Conflict, Some("b"))
        );
    }

    #[test]
    fn a_part_that_clears_its_map_finds_nothing() {
        let present = put("q").expect(Expect::Present, Otherwise::Skip);
        let mut batch = batch(vec![present.in_group(1), put("r").in_group(1)], vec![]);
        let all = stored(&["aq", "ar"]);
        assert!(skipped(&batch, &all).unwrap().is_empty());
        batch.maps = batch
            .maps
            .iter()
            .map(|part| part.clone().clearing(true))
            .collect();
        assert_eq!(skipped(&batch, &all).unwrap(), ["aq", "ar"]);
    }
}
