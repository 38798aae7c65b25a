//! The triggers of an open map, which can be changed at any time.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use crate::map::api::builder::options::Triggers;

/// When a flush starts by itself. Each write of a clean entry reads the size.
pub(crate) struct CurrentTriggers {
    size: AtomicUsize,
    /// In nanoseconds; at most 584 years.
    interval: AtomicU64,
}

impl CurrentTriggers {
    pub(crate) fn new(triggers: Triggers) -> Self {
        let current = Self {
            size: AtomicUsize::new(0),
            interval: AtomicU64::new(0),
        };
        current.set(triggers);
        current
    }

    pub(crate) fn set(&self, Triggers { size, interval }: Triggers) {
        let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        self.size.store(size, Relaxed);
        self.interval.store(nanos, Relaxed);
    }

    pub(crate) fn size(&self) -> usize {
        self.size.load(Relaxed)
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval.load(Relaxed))
    }
}
