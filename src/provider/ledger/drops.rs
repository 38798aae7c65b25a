//! Fencing of dropped maps.
//!
//! A drop is a commit with a revision above all earlier ones of the map. The store keeps that
//! revision after the map is gone. Each part of a batch names the revision up to which its
//! writer has [seen](MapBatch::seen) the map, and a part from before the drop is refused. This
//! fences a commit that was abandoned and arrives late, and also the next commit of a map that
//! is still open: its changes belong to the dropped map.
//!
//! A new [incarnation](crate::Incarnation) would refuse both too. But the incarnation belongs
//! to the whole store, and a new one would stop all other maps that are open there.
//!
//! A writer that loads the map after the drop has seen the drop, because the horizon of a load
//! is at least the revision of every earlier commit. A batch that does not name a revision
//! its writer has seen is admitted.

use std::time::SystemTime;

use crate::{
    batch::{Batch, BatchId, MapBatch, WriterId},
    error::Error,
    incarnation::Rewound,
    name::MapName,
    record::Revision,
};

/// The batch that stands for a drop: a new writer clears the map. A store may commit it, or
/// only use its [revision](Batch::revision_after) as that of the drop.
pub fn clearing(map: &MapName) -> Batch {
    let part = MapBatch::new(map.clone(), Vec::new()).clearing(true);
    let id = BatchId::new(WriterId::random(), 1);
    Batch::new(id, Revision::ZERO, SystemTime::now(), [part])
}

/// Refuses a batch if one of its writers has not seen the drop of its map. Call it for batches
/// that [`admit`](super::admit) admits; a repeated batch gets its first answer.
///
/// `dropped` returns the revision at which a map was last dropped. The store must not change
/// between this call and the commit.
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
