//! A batch being assembled.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::task::yield_now;

use super::taking::{Candidate, Reserved};
use crate::{
    batch::Change,
    error::Error,
    map::{
        core::Core,
        lifetime::Lifetime,
        write_behind::{dirty_queue::Watermark, waiters::Waiters},
    },
};

/// How many entries are taken in one go: enough that several lie in the same shard,
/// and few enough to stay in the processor's cache until they are encoded.
const AT_ONCE: usize = 1_024;

/// A batch being assembled.
pub(super) struct Draft {
    pub(super) generation: u64,
    pub(super) clear: bool,
    pub(super) changes: Vec<Change>,
    pub(super) bytes: usize,
    pub(super) waiters: Waiters,
    /// The keys whose values could not be encoded, to be reported.
    pub(super) unwritable: Vec<(Arc<str>, Error)>,
}

/// The map was cleared meanwhile; the draft is useless.
pub(super) struct Cleared;

impl<V, L: Lifetime<V>> Core<V, L> {
    pub(super) fn draft(&self) -> Draft {
        let generation = self.generation.load(SeqCst);
        Draft {
            generation,
            clear: self.stored_generation.load(SeqCst) != generation,
            changes: Vec::new(),
            bytes: 0,
            waiters: Waiters::default(),
            unwritable: Vec::new(),
        }
    }

    /// Whether the draft has reached `1 / shares` of a batch.
    pub(super) fn is_full(&self, draft: &Draft, shares: usize) -> bool {
        draft.changes.len() >= self.options.max_batch / shares
            || draft.bytes >= self.options.max_batch_bytes / shares
    }
}

impl<V: Serialize + DeserializeOwned, L: Lifetime<V>> Core<V, L> {
    /// Takes queued entries ahead, for the next batch, so that they are encoded while the
    /// store commits the current one. Never ends by itself.
    ///
    /// The entries count as part of the commit in flight. A write finds them marked and
    /// queues them again, so none is lost; and the watermark is that of the round, so none
    /// of them is in the batch that is being committed. Only half of a batch is taken: a
    /// caller that waits for a key finds room in the next one.
    pub(super) async fn draft_ahead(
        &self,
        until: &mut Watermark,
        ahead: &mut Option<Draft>,
    ) -> Infallible {
        let draft = self.draft();
        // A clear is committed together with the changes that follow it.
        if !draft.clear {
            let draft = ahead.insert(draft);
            while let Ok(true) = self.add_some(draft, until, 2) {
                yield_now().await;
            }
        }
        pending().await
    }

    /// Adds some queued entries, up to `1 / shares` of a batch; returns whether there may be
    /// more.
    pub(super) fn add_some(
        &self,
        draft: &mut Draft,
        until: &mut Watermark,
        shares: usize,
    ) -> Result<bool, Cleared> {
        if self.is_full(draft, shares) {
            return Ok(false);
        }
        let room = self.options.max_batch - draft.changes.len();
        let keys = self.queue.pop(until, room.min(AT_ONCE));
        self.add_all(draft, &keys, until)?;
        Ok(!keys.is_empty())
    }

    /// Takes these entries; those that no longer fit are queued again, in front.
    pub(super) fn add_all(
        &self,
        draft: &mut Draft,
        keys: &[Arc<str>],
        until: &mut Watermark,
    ) -> Result<(), Cleared> {
        let reserved = self.reserve_all(keys, draft.generation);
        self.queue.seen(keys.len());
        let mut rest = keys.iter().zip(reserved);
        for (key, reserved) in rest.by_ref() {
            let taken = self.finish_taking(key, reserved, draft.generation);
            draft.add(key, taken, until)?;
            if self.is_full(draft, 1) {
                break;
            }
        }
        // Only entries taken here: those already in the draft stay there.
        let rest = rest.filter(|(_, reserved)| matches!(reserved, Reserved::Saving { .. }));
        for (key, _) in rest.rev() {
            self.requeue(key, false);
            until.rewind();
        }
        Ok(())
    }
}

impl Draft {
    pub(super) fn add(
        &mut self,
        key: &Arc<str>,
        taken: Candidate,
        until: &mut Watermark,
    ) -> Result<Candidate, Cleared> {
        match taken {
            Candidate::Change(change) => {
                self.bytes += change.weight();
                self.changes.push(change);
                Ok(Candidate::Already)
            }
            Candidate::Unwritable(error) => {
                // The change that replaced it may be in front of the queue.
                until.rewind();
                self.unwritable.push((key.clone(), error.clone()));
                Ok(Candidate::Unwritable(error))
            }
            Candidate::Cleared => Err(Cleared),
            other => Ok(other),
        }
    }
}
