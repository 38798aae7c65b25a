//! Handles a refused batch: isolates the refused keys.

use std::{collections::HashSet, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use super::{DirtyBatch, Flusher};
use crate::{
    error::{Error, ErrorKind, Result},
    event::{KeySample, Operation},
    map::lifetime::Lifetime,
};

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// Handles a batch that the store has examined and refused.
    ///
    /// # Errors
    ///
    /// The error, if it is not about single keys; every waiting caller has
    /// received it.
    pub(super) fn rejected(
        &mut self,
        dirty: DirtyBatch,
        operation: Operation,
        error: Error,
        uncertain: bool,
    ) -> Result<()> {
        self.writer.attempts.failed(self.core.clock.now());
        let operation = if self.writer.down && operation == Operation::Commit {
            Operation::Probe
        } else {
            operation
        };
        if is_of_a_key(&dirty, operation, &error) {
            self.isolate(dirty, operation, &error, uncertain);
            return Ok(());
        }
        let was_down = self.writer.down;
        self.committer()
            .report(operation, dirty.sample(), &error, !was_down);
        self.put_back(dirty, uncertain);
        self.committer().stop(&error, false);
        Err(error)
    }

    /// Queues every entry of this batch again; its value will be read again. If
    /// `uncertain`, an attempt may have reached the store anyway.
    pub(super) fn put_back(&mut self, dirty: DirtyBatch, uncertain: bool) {
        if uncertain {
            self.writer.unacknowledged.add(dirty.changes());
        }
        // From last to first, each in front of the others, which keeps their order.
        for change in dirty.changes().iter().rev() {
            self.core.requeue(&change.key, uncertain);
        }
        self.core.give_back(dirty.waiters);
    }

    /// Separates the refused keys from the others: those that the error names, or
    /// else by halving the batch until one key is left.
    fn isolate(&mut self, dirty: DirtyBatch, operation: Operation, error: &Error, uncertain: bool) {
        let keys: Vec<_> = dirty.changes().iter().map(|c| c.key.clone()).collect();
        let refused = match keys.len() {
            1 => keys.clone(),
            _ => named_among(&keys, error),
        };
        let is_final = !refused.is_empty();
        let concerned = if is_final { &refused } else { &keys };
        let sample = KeySample::of(concerned);
        self.committer().report(operation, sample, error, is_final);
        // Cloned for each refused key, so without its own keys, which may be as
        // many.
        let unnamed = error.clone().on_keys([]);
        for key in &refused {
            let error = unnamed.clone().on_keys([key.clone()]);
            self.core.refuse(key, &error, uncertain);
        }
        if refused.is_empty() {
            let (first, second) = keys.split_at(keys.len() / 2);
            self.parts.extend([second.to_vec(), first.to_vec()]);
        }
        self.put_back(dirty, uncertain);
        // The store has examined the batch, so it is up.
        self.committer().store_answered();
    }
}

/// Whether single changes are to blame, so that the others can be committed without
/// them. Not if copies of unreadable records are refused before a clear: the other
/// changes cannot precede the clear, and the clear must not precede the copies of
/// records that it removes.
fn is_of_a_key(dirty: &DirtyBatch, operation: Operation, error: &Error) -> bool {
    let waits = operation == Operation::SetAside && dirty.clears();
    error.kind() == ErrorKind::Refused && !waits && !dirty.changes().is_empty()
}

/// The keys of the batch that the error names.
fn named_among(keys: &[Arc<str>], error: &Error) -> Vec<Arc<str>> {
    let keys: HashSet<_> = keys.iter().collect();
    let named = error.keys().iter().filter(|key| keys.contains(key));
    named.cloned().collect()
}
