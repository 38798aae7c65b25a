//! Conditions, and the changes that are skipped because theirs does not hold.

use std::sync::Arc;

use crate::{
    batch::{Batch, Change, Expect, MapBatch, Otherwise, Skipped},
    error::Error,
    name::MapName,
    record::Record,
};

/// Checks all conditions of a batch against the store as it is before the
/// batch, and returns the changes to skip, in the order of the changes.
///
/// `stored` looks up the record of a key. It is called only for changes with a
/// condition, and not for a part that clears its map first: that part finds the
/// map empty. The store must not change between this and the commit.
///
/// # Errors
///
/// [`Conflict`](crate::ErrorKind::Conflict) for the first condition that does
/// not hold and is not to be skipped, and the errors of `stored`.
pub fn check_conditions<E: From<Error>>(
    batch: &Batch,
    mut stored: impl FnMut(&MapName, &Arc<str>) -> Result<Option<Record>, E>,
) -> Result<Vec<Skipped>, E> {
    let mut skipped = Vec::new();
    for part in batch.maps.iter() {
        for change in conditional(part) {
            let found = if part.clear {
                None
            } else {
                stored(&part.map, &change.key)?
            };
            let seen = found
                .as_ref()
                .map(|record| (record.revision, record.expires_at));
            if change.expect.holds(seen, batch.at) {
                continue;
            }
            if change.otherwise == Otherwise::Fail {
                return Err(Error::conflict(&part.map, &change.key, found).into());
            }
            skipped.push(Skipped::new(part.map.clone(), change.key.clone(), found));
        }
    }
    Ok(skipped)
}

/// The changes of a part that have a condition.
pub fn conditional(part: &MapBatch) -> impl Iterator<Item = &Change> {
    let changes = part.changes.iter();
    changes.filter(|change| change.expect != Expect::Any)
}

/// The changes of a part that are to be applied: all but the skipped ones.
pub fn applied<'a>(part: &'a MapBatch, skipped: &'a [Skipped]) -> impl Iterator<Item = &'a Change> {
    // Skipped changes come in the order of the changes, so one walk along both
    // finds them.
    let skipped = skipped.iter().filter(|skipped| skipped.map == part.map);
    let mut skipped = skipped.peekable();
    let changes = part.changes.iter();
    changes.filter(move |change| skipped.next_if(|s| s.key == change.key).is_none())
}
