//! Batches of one map, sent by its own committer.

use super::{
    Committer,
    delivery::{Delivery, Outcome},
};
use crate::{
    batch::{Batch, BatchId, MapBatch, WriterId},
    error::{Error, Result},
    event::Operation,
    map::load::unreadable::copy_of,
    name::ASIDE,
    record::Record,
};

impl Committer<'_> {
    /// Sends a batch of dirty entries until its outcome is known. `on_exhausted` is called
    /// each time the attempts are used up before that.
    pub(crate) async fn deliver(
        &mut self,
        batch: &Batch,
        on_exhausted: impl FnMut(&Error),
    ) -> Outcome {
        let provider = self.shared.provider.clone();
        let delivery = Delivery::new(&*provider, std::slice::from_mut(self), batch);
        delivery.of_what_may_change().run(on_exhausted).await
    }

    /// Copies unreadable records aside before their keys are overwritten. The
    /// copies are committed first, so a crash between the two commits leaves both.
    ///
    /// # Errors
    ///
    /// The outcome, if the copies were not committed.
    pub(crate) async fn set_aside(
        &mut self,
        records: &[Record],
        on_exhausted: impl FnMut(&Error),
    ) -> Result<(), Outcome> {
        if records.is_empty() {
            return Ok(());
        }
        let rejected = |error| Outcome::Rejected {
            error,
            uncertain: false,
        };
        let map = self.shared.name.nested(ASIDE).map_err(rejected)?;
        let changes = records.iter().map(copy_of).collect();
        // A new writer each time, and no claims: the map's claims do not apply to
        // the map of the copies.
        let id = BatchId::new(WriterId::random(), 1);
        let (after, now) = (self.writer.horizon, self.shared.clock.now());
        let batch = Batch::new(id, after, now, vec![MapBatch::new(map, changes)]).divisible(true);
        let provider = self.shared.provider.clone();
        let delivery = Delivery::new(&*provider, std::slice::from_mut(self), &batch);
        match delivery.of(Operation::SetAside).run(on_exhausted).await {
            Outcome::Committed(_) => {
                self.shared.was_set_aside(records);
                Ok(())
            }
            failed => Err(failed),
        }
    }

    /// Sends an empty batch, to check that the store answers and to make it
    /// remember this writer.
    ///
    /// # Errors
    ///
    /// The store's error. Waiting callers have it already, unless the store has refused
    /// the batch.
    pub(crate) async fn introduce(&mut self, on_exhausted: impl FnMut(&Error)) -> Result<()> {
        let nothing = MapBatch::new(self.shared.name.clone(), Vec::new());
        let batch = self.writer.batch(nothing, &self.shared.clock);
        let provider = self.shared.provider.clone();
        let delivery = Delivery::new(&*provider, std::slice::from_mut(self), &batch);
        match delivery.run(on_exhausted).await {
            Outcome::Committed(committed) => {
                self.applied(&[], &[], committed.revision);
                self.check_incarnation(committed.incarnation)
            }
            Outcome::Rejected { error, .. } | Outcome::Abandoned { error, .. } => Err(error),
        }
    }
}
