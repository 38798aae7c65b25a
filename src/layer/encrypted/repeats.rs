//! Encrypted batches that are not acknowledged yet.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::{batch::Batch, name::MapName};

/// The maximum number of batches. A batch that was dropped and is then repeated gets other
/// nonces. This is harmless: stores recognise a repeat by its id.
const MAX: usize = 32;

/// The last batch of each writer and its encrypted form, from the first attempt until the
/// store acknowledges it. So every repeat is identical to the first attempt.
#[derive(Default)]
pub(super) struct Repeats(Mutex<VecDeque<Attempted>>);

#[derive(Clone)]
struct Attempted {
    batch: Batch,
    encrypted: Batch,
}

impl Repeats {
    /// The encrypted form of an identical batch. Batches are compared by content: a caller that
    /// gives one id to two batches must not get the old content stored.
    pub(super) fn find(&self, batch: &Batch) -> Option<Batch> {
        let known = {
            let attempted = self.0.lock();
            attempted.iter().find(|a| a.batch.id == batch.id).cloned()?
        };
        (known.batch == *batch).then_some(known.encrypted)
    }

    /// Keeps the encrypted form of a batch, in place of the writer's previous one. A batch
    /// without values, such as a fence, replaces nothing: its predecessor may be repeated after
    /// it.
    pub(super) fn add(&self, batch: &Batch, encrypted: &Batch) {
        if Arc::ptr_eq(&batch.maps, &encrypted.maps) {
            return;
        }
        let mut attempted = self.0.lock();
        attempted.retain(|known| known.batch.id.writer != batch.id.writer);
        if attempted.len() >= MAX {
            attempted.pop_front();
        }
        attempted.push_back(Attempted {
            batch: batch.clone(),
            encrypted: encrypted.clone(),
        });
    }

    pub(super) fn acknowledged(&self, batch: &Batch) {
        self.0.lock().retain(|known| known.batch.id != batch.id);
    }

    pub(super) fn released(&self, map: &MapName) {
        let is_of = |batch: &Batch| batch.maps.iter().any(|part| part.map == *map);
        self.0.lock().retain(|known| !is_of(&known.batch));
    }
}
