//! Those who load the same key take turns.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Mutex;

/// So few queues are never swept.
const KEPT: usize = 64;

/// Whoever holds the lock loads; the others wait for it.
type Queue = Arc<Mutex<()>>;

/// A queue for each key that is being loaded.
#[derive(Default)]
pub(super) struct Loaders {
    queues: HashMap<Arc<str>, Queue>,
    /// How many queues somebody was in when they were last swept.
    used: usize,
}

impl Loaders {
    pub(super) fn queue_of(&mut self, key: &str) -> Queue {
        if let Some(queue) = self.queues.get(key) {
            return queue.clone();
        }
        self.sweep();
        self.queues.entry(key.into()).or_default().clone()
    }

    /// Forgets the queues that nobody is in any more, once there are twice as
    /// many as the last time: so each costs one look or two, however many keys
    /// are loaded at once.
    fn sweep(&mut self) {
        if self.queues.len() < KEPT.max(2 * self.used) {
            return;
        }
        self.queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        self.used = self.queues.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_nobody_is_in_do_not_stay() {
        let mut loaders = Loaders::default();
        for n in 0..100_000 {
            loaders.queue_of(&n.to_string());
        }
        assert!(loaders.queues.len() <= KEPT);
        let held: Vec<_> = (0..1_000)
            .map(|n| loaders.queue_of(&format!("{n}")))
            .collect();
        assert!(Arc::ptr_eq(&held[0], &loaders.queue_of("0")));
        assert!(loaders.queues.len() >= held.len());
        drop(held);
        for n in 0..100_000 {
            loaders.queue_of(&n.to_string());
        }
        assert!(loaders.queues.len() <= KEPT);
    }

    /// Each new queue looked at all others, under a lock that all who load wait
    /// for: many keys that were loaded at once took minutes.
    #[test]
    fn many_queues_at_once_are_not_looked_at_for_each() {
        let mut loaders = Loaders::default();
        let held: Vec<_> = (0..200_000)
            .map(|n| loaders.queue_of(&n.to_string()))
            .collect();
        assert_eq!(loaders.queues.len(), held.len());
    }
}
