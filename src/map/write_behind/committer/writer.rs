//! The writer of an open map, as its store knows it.

use super::{
    claims::Claims,
    doubts::Doubts,
    news::News,
    retry::{Attempts, RetryPolicy},
};
use crate::{
    batch::{Batch, BatchId, Change, MapBatch, Skipped, WriterId},
    clock::MapClock,
    heartbeat::Heartbeat,
    record::Revision,
};

/// What a map knows of its store, and of its own commits. There is one for each open map,
/// and whoever holds it may commit: so one commit is in flight at a time.
pub(crate) struct Writer {
    pub(crate) id: WriterId,
    sequence: u64,
    /// The highest revision seen.
    pub(crate) horizon: Revision,
    /// What the store has to know of this map.
    pub(crate) claims: Claims,
    /// Changes that may be in the store, of which revision is not known.
    pub(crate) doubts: Doubts,
    /// The attempts at the batch under way.
    pub(crate) attempts: Attempts,
    /// The attempts were spent; the store is probed.
    pub(crate) down: bool,
    /// The store has gone back in time, and nothing was decided yet.
    pub(crate) rewound: bool,
    /// What other maps find out about the store.
    pub(crate) news: News,
}

impl Writer {
    pub(crate) fn new(
        horizon: Revision,
        claims: Claims,
        doubts: Doubts,
        retry: &RetryPolicy,
        heartbeat: Option<Heartbeat>,
    ) -> Self {
        Self {
            id: WriterId::random(),
            sequence: 0,
            horizon,
            claims,
            doubts,
            attempts: Attempts::new(retry),
            down: false,
            rewound: false,
            news: News::of(heartbeat),
        }
    }

    /// An id for the next batch. The sequence after it stays free, to fence that batch
    /// with.
    pub(crate) fn next_id(&mut self) -> BatchId {
        self.sequence += 2;
        BatchId::new(self.id, self.sequence - 1)
    }

    /// A batch of this writer alone.
    pub(crate) fn batch(&mut self, part: MapBatch, clock: &MapClock) -> Batch {
        let now = clock.now();
        let part = self.claims.on(part, now);
        Batch::new(self.next_id(), self.horizon, now, vec![part])
    }

    /// The store has applied these changes, but for those that were left out.
    pub(crate) fn applied(
        &mut self,
        changes: &[Change],
        skipped: &[Skipped],
        revision: Option<Revision>,
    ) {
        self.horizon = self.horizon.max(revision.unwrap_or_default());
        self.doubts.settle(changes, skipped, revision);
    }

    /// Another writer for the same map, while this one is away.
    pub(crate) fn stand_in(&self, retry: &RetryPolicy) -> Self {
        let doubts = self.doubts.none();
        Self::new(self.horizon, Claims::default(), doubts, retry, None)
    }
}
