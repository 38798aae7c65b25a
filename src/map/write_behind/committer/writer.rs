//! The writer identity of an open map.

use std::time::SystemTime;

use super::{
    claims::Claims,
    news::News,
    retry::{Attempts, RetryPolicy},
    unacknowledged::Unacknowledged,
};
use crate::{
    batch::{Batch, BatchId, Change, MapBatch, Skipped, WriterId},
    clock::MapClock,
    heartbeat::Heartbeat,
    record::Revision,
};

/// A map's knowledge of its store and its own commits. Each open map has one, and
/// only its holder may commit, so one commit is in flight at a time.
pub(crate) struct Writer {
    pub(crate) id: WriterId,
    sequence: u64,
    /// The highest revision seen.
    pub(crate) horizon: Revision,
    /// The claims that this map sends with each commit.
    pub(crate) claims: Claims,
    /// Changes that may be in the store at an unknown revision.
    pub(crate) unacknowledged: Unacknowledged,
    /// The attempts at the current batch.
    pub(crate) attempts: Attempts,
    /// The attempts were used up; the store is being probed.
    pub(crate) down: bool,
    /// The store has gone back in time, and this is not resolved yet.
    pub(crate) rewound: bool,
    /// The entries were loaded from a copy of the store that is complete up to this time.
    pub(crate) copied_at: Option<SystemTime>,
    /// Health reports shared with other maps of the store.
    pub(crate) news: News,
}

impl Writer {
    pub(crate) fn new(
        horizon: Revision,
        claims: Claims,
        unacknowledged: Unacknowledged,
        retry: &RetryPolicy,
        heartbeat: Option<Heartbeat>,
    ) -> Self {
        Self {
            id: WriterId::random(),
            sequence: 0,
            horizon,
            claims,
            unacknowledged,
            attempts: Attempts::new(retry),
            down: false,
            rewound: false,
            copied_at: None,
            news: News::of(heartbeat),
        }
    }

    /// The id of the next batch. The sequence after it stays free for the batch's
    /// fence.
    pub(crate) fn next_id(&mut self) -> BatchId {
        self.sequence += 2;
        BatchId::new(self.id, self.sequence - 1)
    }

    /// A batch of this map alone.
    pub(crate) fn batch(&mut self, part: MapBatch, clock: &MapClock) -> Batch {
        let now = clock.now();
        let part = self.claims.on(part, now).having_seen(Some(self.horizon));
        Batch::new(self.next_id(), self.horizon, now, vec![part])
    }

    /// Records that the store has applied these changes, except for the skipped
    /// ones.
    pub(crate) fn applied(
        &mut self,
        changes: &[Change],
        skipped: &[Skipped],
        revision: Option<Revision>,
    ) {
        self.horizon = self.horizon.max(revision.unwrap_or_default());
        self.unacknowledged.settle(changes, skipped, revision);
    }

    /// A temporary writer for the same map, while this one is lent.
    pub(crate) fn stand_in(&self, retry: &RetryPolicy) -> Self {
        let unacknowledged = self.unacknowledged.none();
        Self::new(self.horizon, Claims::default(), unacknowledged, retry, None)
    }
}
