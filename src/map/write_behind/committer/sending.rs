//! Batches that one map sends for itself.

use super::{
    Committer,
    delivery::{Delivery, Outcome},
};
use crate::{
    batch::{Batch, BatchId, MapBatch, WriterId},
    error::{Error, Result},
    event::Operation,
    map::load::unreadable::{ASIDE, copy_of},
    record::Record,
};

impl Committer<'_> {
    /// Sends a batch of dirty entries until its outcome is known. `told` is called each time
    /// the attempts are spent before that.
    pub(crate) async fn deliver(&mut self, batch: &Batch, told: impl FnMut(&Error)) -> Outcome {
        let provider = self.shared.provider.clone();
        let delivery = Delivery::new(&*provider, std::slice::from_mut(self), batch);
        delivery.of_what_may_change().run(told).await
    }

    /// Sets records aside that do not decode, before their keys are overwritten. The copies
    /// are committed first, so that a crash between the two leaves both.
    ///
    /// # Errors
    ///
    /// The outcome, if they were not committed.
    pub(crate) async fn set_aside(
        &mut self,
        records: &[Record],
        told: impl FnMut(&Error),
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
        // A writer of its own each time, and no claims: what the store knows of the map says
        // nothing of that one.
        let id = BatchId::new(WriterId::random(), 1);
        let (after, now) = (self.writer.horizon, self.shared.clock.now());
        let batch = Batch::new(id, after, now, vec![MapBatch::new(map, changes)]);
        let provider = self.shared.provider.clone();
        let delivery = Delivery::new(&*provider, std::slice::from_mut(self), &batch);
        match delivery.of(Operation::SetAside).run(told).await {
            Outcome::Committed(_) => {
                self.shared.was_set_aside(records);
                Ok(())
            }
            failed => Err(failed),
        }
    }

    /// Commits nothing: finds out whether the store answers, and remembers this writer.
    ///
    /// # Errors
    ///
    /// Why it does not; callers that waited were told.
    pub(crate) async fn introduce(&mut self) -> Result<()> {
        let nothing = MapBatch::new(self.shared.name.clone(), Vec::new());
        let batch = self.writer.batch(nothing, &self.shared.clock);
        let provider = self.shared.provider.clone();
        let delivery = Delivery::new(&*provider, std::slice::from_mut(self), &batch);
        match delivery.run(|_| {}).await {
            Outcome::Committed(committed) => {
                self.applied(&[], &[], committed.revision);
                self.check_incarnation(committed.incarnation)
            }
            Outcome::Rejected { error, .. } | Outcome::Abandoned { error, .. } => Err(error),
        }
    }
}
