//! Maps that were dropped, and why nothing of before comes back.
//!
//! A drop is a commit: it has a revision, above all earlier ones of the map. The
//! store keeps that revision when the map is gone. Each part of a batch says up to
//! which revision its writer has [seen](MapBatch::seen) the map, and a part from
//! before the drop is refused. That holds for a commit that was given up and lands
//! late, and for the next one of a map that is still open: what it was told to
//! write belongs to a map that is gone.
//!
//! An [incarnation](crate::Incarnation) would refuse both as well, but it belongs to
//! the whole store: a new one would stop every other map that is open there.
//!
//! A writer that loads the map after the drop has seen it, because the horizon of a
//! load is not below the revision of any commit before it. A batch that does not say
//! what its writer has seen is admitted, as one is that claims nothing else.

use std::time::SystemTime;

use crate::{
    batch::{Batch, BatchId, MapBatch, WriterId},
    error::Error,
    incarnation::Rewound,
    name::MapName,
    record::Revision,
};

/// The batch that a drop is: a fresh writer empties the map. A store may commit it,
/// or only take the [revision](Batch::revision_after) of the drop from it.
pub fn clearing(map: &MapName) -> Batch {
    let part = MapBatch::new(map.clone(), Vec::new()).clearing(true);
    let id = BatchId::new(WriterId::random(), 1);
    Batch::new(id, Revision::ZERO, SystemTime::now(), [part])
}

/// Refuses a batch if a writer of it has not seen that its map was dropped. For a
/// batch that [`admit`](super::admit) would apply; a repeat is answered as before.
///
/// `dropped` tells the revision at which a map was last dropped. The store must not
/// change between this and the commit that follows.
///
/// # Errors
///
/// [`Rewound`](crate::ErrorKind::Rewound), and the errors of `dropped`.
pub fn check_dropped<E: From<Error>>(
    batch: &Batch,
    mut dropped: impl FnMut(&MapName) -> Result<Option<Revision>, E>,
) -> Result<(), E> {
    for part in batch.maps.iter() {
        let Some(seen) = part.seen else {
            continue;
        };
        if dropped(&part.map)?.is_some_and(|at| seen < at) {
            let states = Rewound::new(part.incarnation, part.incarnation);
            return Err(Error::map_dropped(states).on_map(&part.map).into());
        }
    }
    Ok(())
}
