//! The answers of a provider with a flaw.

use super::*;

impl Broken {
    pub(super) async fn after_error(&self, batch: &Batch, error: Error) -> Result<Committed> {
        match (self.flaw, error.kind()) {
            (Flaw::HalvesConflicts, ErrorKind::Conflict) => {
                let mut parts = batch.maps.to_vec();
                for part in &mut parts {
                    part.clear = false;
                    part.changes.retain(|change| change.expect == Expect::Any);
                }
                let half = Batch::new(provider::anew(), batch.after, batch.at, parts);
                self.memory.commit(&half).await?;
            }
            (Flaw::ClearsBeforeConflicts, ErrorKind::Conflict) => {
                let mut parts = batch.maps.to_vec();
                for part in &mut parts {
                    part.changes.clear();
                }
                let half = Batch::new(provider::anew(), batch.after, batch.at, parts);
                self.memory.commit(&half).await?;
            }
            (Flaw::NoFence, ErrorKind::Superseded) => {
                let mut again = batch.clone();
                again.id = provider::anew();
                return self.memory.commit(&again).await;
            }
            (Flaw::ConflictWithoutFound, ErrorKind::Conflict) => return Err(error.with_found(None)),
            (Flaw::ConflictWithoutKey, ErrorKind::Conflict) => return Err(error.on_keys([])),
            (Flaw::UnsureOfConflicts, ErrorKind::Conflict) => return Err(error.outcome_unknown()),
            _ => {}
        }
        Err(error)
    }

    pub(super) fn after_success(&self, mut answer: Committed) -> Committed {
        if self.flaw == Flaw::CoarseRevisions {
            answer.revision = answer.revision.map(provider::coarse);
        }
        if self.flaw == Flaw::BytesFoundAsJson {
            let found = answer
                .skipped
                .iter_mut()
                .filter_map(|skip| skip.found.as_mut());
            for payload in found.filter_map(|record| record.value.as_mut()) {
                payload.encoding = Encoding::Json;
            }
        }
        if self.flaw == Flaw::AnswersRepeatsAnew {
            let revision = answer.revision.map_or(0, Revision::get);
            let mut last = self.last.lock().unwrap();
            let before = last.replace(BatchId::new(WriterId::new(0), revision));
            if before.is_some_and(|before| before.sequence == revision) {
                answer.revision = Some(Revision::new(revision + 1));
            }
        }
        answer
    }
}
