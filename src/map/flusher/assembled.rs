//! A batch on its way, and those who wait for it.

use std::mem;

use crate::{
    batch::{Batch, Change, MapBatch},
    error::Result,
    event::KeySample,
    map::requests::Save,
};

/// A batch, and what depends on its fate.
pub(super) struct Assembled {
    pub(super) batch: Batch,
    /// The last clear that it carries to the store, or comes after.
    pub(super) epoch: u64,
    /// Those who wait for it.
    pub(super) saves: Vec<Save>,
    /// An attempt may have reached the store, although its answer did not
    /// reach us.
    pub(super) uncertain: bool,
}

impl Assembled {
    fn part(&self) -> Option<&MapBatch> {
        self.batch.maps.first()
    }

    pub(super) fn changes(&self) -> &[Change] {
        self.part().map_or(&[], |part| &part.changes)
    }

    pub(super) fn clears(&self) -> bool {
        self.part().is_some_and(|part| part.clear)
    }

    /// No change could be taken out of it.
    pub(super) fn is_bare_clear(&self) -> bool {
        self.changes().is_empty()
    }

    pub(super) fn sample(&self) -> KeySample {
        KeySample::of(self.changes().iter().map(|change| &change.key))
    }

    /// Those who wait for its changes; who waits for its clear goes on waiting.
    pub(super) fn take_saves_of_keys(&mut self) -> Vec<Save> {
        let saves = mem::take(&mut self.saves).into_iter();
        let (of_keys, others) = saves.partition(|save| save.key().is_some());
        self.saves = others;
        of_keys
    }

    /// Tells all who wait for it; hands out the batch.
    pub(super) fn answer(self, result: &Result<()>) -> Batch {
        answer_all(self.saves, result);
        self.batch
    }
}

/// Tells all of them the same.
pub(super) fn answer_all(saves: Vec<Save>, result: &Result<()>) {
    for save in saves {
        // Whoever stopped waiting needs no answer.
        let _ = save.answer.send(result.clone());
    }
}
