//! A batch of dirty entries, and the callers that wait for it.

use crate::{
    batch::{Batch, Change, MapBatch},
    event::KeySample,
    map::write_behind::waiters::Waiters,
};

/// A batch of dirty entries, and the callers that wait for it.
pub(super) struct DirtyBatch {
    pub(super) batch: Batch,
    /// The generation of the last clear that the batch carries or follows.
    pub(super) generation: u64,
    pub(super) waiters: Waiters,
}

impl DirtyBatch {
    fn part(&self) -> Option<&MapBatch> {
        self.batch.maps.first()
    }

    pub(super) fn changes(&self) -> &[Change] {
        self.part().map_or(&[], |part| &part.changes)
    }

    pub(super) fn clears(&self) -> bool {
        self.part().is_some_and(|part| part.clear)
    }

    pub(super) fn sample(&self) -> KeySample {
        KeySample::of(self.changes().iter().map(|change| &change.key))
    }
}
