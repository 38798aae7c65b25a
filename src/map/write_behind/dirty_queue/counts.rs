//! The number of keys that are queued, and of those in a commit.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts the keys that are queued, and those in a commit.
///
/// A key that moves between them is added to one before it is removed from the other, and
/// both are in one word. So no reader finds it in neither.
#[derive(Default)]
pub(crate) struct Counts(AtomicU64);

/// One queued key. The lower half counts the keys in a commit.
const QUEUED: u64 = 1 << 32;

impl Counts {
    pub(crate) fn queued(&self) -> usize {
        queued(self.0.load(Relaxed))
    }

    /// The number of keys that are queued or in a commit.
    pub(crate) fn pending(&self) -> usize {
        let both = self.0.load(Relaxed);
        queued(both) + (both % QUEUED) as usize
    }

    /// Adds a queued key; returns their number.
    pub(crate) fn add_queued(&self) -> usize {
        queued(self.0.fetch_add(QUEUED, Relaxed)) + 1
    }

    pub(crate) fn remove_queued(&self, keys: usize) {
        self.0.fetch_sub(keys as u64 * QUEUED, Relaxed);
    }

    pub(crate) fn add_saving(&self, keys: usize) {
        self.0.fetch_add(keys as u64, Relaxed);
    }

    pub(crate) fn remove_saving(&self, keys: usize) {
        self.0.fetch_sub(keys as u64, Relaxed);
    }

    pub(crate) fn forget_saving(&self) {
        self.0.fetch_and(!(QUEUED - 1), Relaxed);
    }
}

/// Less than 2³², because the places in the queue are numbered in 32 bits.
fn queued(both: u64) -> usize {
    (both / QUEUED) as usize
}
