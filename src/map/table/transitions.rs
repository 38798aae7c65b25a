//! Applies events to entries in the table and keeps the dirty queue in step. Each
//! event is one critical section.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use super::save_state::{Event, Mark, QueueMove, SaveState, StoredVersion};
use super::{reentrancy::ReentrancyGuard, shards::EntryMut};
use crate::{
    error::{Error, ErrorKind},
    map::{core::Core, lifetime::Lifetime, shared::Shared},
};

impl Shared {
    /// Applies an event to an entry, with its shard locked for writing.
    #[inline]
    pub(crate) fn apply(&self, key: &Arc<str>, state: &mut SaveState, event: Event) {
        let (before, place) = (state.mark, state.place);
        let queue = state.apply(event);
        if before != state.mark {
            self.follow(key, state, (before, place), queue);
        }
    }

    /// Keeps the counts and the queue in step with a mark that has changed.
    fn follow(
        &self,
        key: &Arc<str>,
        state: &mut SaveState,
        (before, place): (Mark, u32),
        queue: QueueMove,
    ) {
        if before == Mark::Refused && state.mark != Mark::Refused {
            self.delist_refused(key, state.mark);
        }
        match queue {
            QueueMove::Stay => {}
            QueueMove::PushBack => state.place = self.queue_up(key),
            QueueMove::PushFront => {
                if before.is_queued() {
                    self.queue.unlink(place, key);
                }
                state.place = self.queue.push_front(key.clone());
            }
            QueueMove::Remove => self.queue.unlink(place, key),
        }
        // After it was queued: otherwise there would be a moment at which nothing seems to be
        // pending.
        if before == Mark::Saving && state.mark != Mark::Saving {
            self.queue.counts.remove_saving(1);
        }
    }

    fn queue_up(&self, key: &Arc<str>) -> u32 {
        let (place, queued) = self.queue.push(key.clone());
        // A pending clear waits too, without being in the queue.
        if queued == 1 && !self.must_clear() {
            self.age.queued_now(self.clock.now());
        }
        // The flusher waits for the first key, and then for a full batch; keys
        // in between need not wake it.
        if queued == 1 || queued == self.triggers.size() {
            self.wake.notify_one();
        }
        place
    }

    #[cold]
    fn delist_refused(&self, key: &Arc<str>, mark: Mark) {
        if mark.is_queued() {
            self.retried.fetch_add(1, SeqCst);
        }
        self.refused.lock().remove(key);
    }

    /// The reason why the store refused the change of this key; its shard is
    /// locked.
    pub(crate) fn refusal_of(&self, key: &Arc<str>) -> Error {
        // Mark and list change under the shard lock, which is held here.
        let refused = self.refused.lock().get(key).cloned();
        refused.unwrap_or_else(|| {
            Error::new(ErrorKind::Refused, "the change was refused").on_keys([key.clone()])
        })
    }
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Queues a change again, in front, because it was not committed. If
    /// `uncertain`, an attempt may have reached the store anyway.
    pub(crate) fn requeue(&self, key: &Arc<str>, uncertain: bool) {
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        let Some(EntryMut { key, slot }) = shard.find_mut(hash, key) else {
            return;
        };
        let (is_gone, state) = (slot.is_gone(), slot.state_mut());
        let is_unknown_to_store = state.stored == StoredVersion::ABSENT && !uncertain;
        if is_gone && is_unknown_to_store && state.mark.is_in_flight() {
            // The store never had the entry, so no deletion is needed.
            self.apply(key, state, Event::Replaced(StoredVersion::ABSENT));
            let key = key.clone();
            shard.remove(hash, &key);
            shard.count_gone(-1);
            return;
        }
        self.apply(key, state, Event::Failed { uncertain });
    }

    /// Marks a change that the store will never accept. It stays in memory and
    /// does not block other changes. A later change of the key is queued in its
    /// place.
    pub(crate) fn refuse(&self, key: &Arc<str>, error: &Error, uncertain: bool) {
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        let Some(EntryMut { key, slot }) = shard.find_mut(hash, key) else {
            return;
        };
        let (is_gone, state) = (slot.is_gone(), slot.state_mut());
        if state.mark == Mark::Saving && state.is_automatic && !is_gone {
            // The store keeps the value as it was, in its older schema version.
            return self.apply(key, state, Event::Replaced(state.stored));
        }
        let was_in_flight = state.mark.is_in_flight();
        self.apply(key, state, Event::Refused { uncertain });
        if was_in_flight && state.mark == Mark::Refused {
            self.refused.lock().insert(key.clone(), error.clone());
        }
    }

    /// Queues every refused change again; returns how many there were.
    pub(crate) fn retry_refused(&self) -> usize {
        let keys: Vec<_> = self.refused.lock().keys().cloned().collect();
        keys.iter().filter(|key| self.retry(key)).count()
    }

    fn retry(&self, key: &Arc<str>) -> bool {
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(key);
        let mut shard = self.shards.write(hash);
        // While the map closes, no change may become pending unseen.
        let found = shard
            .find_mut(hash, key)
            .filter(|_| self.check_open().is_ok());
        let refused = found.filter(|entry| entry.slot.state().mark == Mark::Refused);
        let Some(EntryMut { key, slot }) = refused else {
            return false;
        };
        // An automatic change stays automatic.
        let is_automatic = slot.state().is_automatic;
        self.apply(key, slot.state_mut(), Event::Written);
        slot.state_mut().is_automatic = is_automatic;
        true
    }
}
