//! What becomes of a batch that was not committed.

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
    /// The store has looked at the batch and will not take it.
    ///
    /// # Errors
    ///
    /// The error, if it is not about single keys; every caller that waits was told.
    pub(super) fn rejected(
        &mut self,
        dirty: DirtyBatch,
        operation: Operation,
        error: Error,
        uncertain: bool,
    ) -> Result<()> {
        self.writer.attempts.failed(self.core.clock.now());
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

    /// Every entry of this batch waits again; its value is read anew. `uncertain` says that
    /// an attempt may have reached the store all the same.
    pub(super) fn put_back(&mut self, dirty: DirtyBatch, uncertain: bool) {
        if uncertain {
            self.writer.doubts.add(dirty.changes());
        }
        // From the last to the first, each in front of the others: so they keep their order.
        for change in dirty.changes().iter().rev() {
            self.core.requeue(&change.key, uncertain);
        }
        self.core.give_back(dirty.waiters);
    }

    /// Gets the refused keys out of the way of the others: those that the error names, or
    /// else by halving the batch until one is left.
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
        // Without its keys, of which there may be as many, it is cheap to clone.
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
        // The store has looked at it, so it is up.
        self.committer().is_well();
    }
}

/// Whether some change of the batch is to blame, and the others can go without it. They
/// cannot go before a clear, and that not before what it would destroy was set aside.
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
