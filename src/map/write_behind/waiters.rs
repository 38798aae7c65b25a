//! The callers that wait for a change to be committed, by key.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
};

use tokio::sync::oneshot;

use crate::error::Result;

/// The channel for the answer to a caller. The caller may have stopped waiting.
pub(crate) type Answer = oneshot::Sender<Result<()>>;

/// Below this number of waiters, abandoned ones are not searched for.
const FEW: usize = 1_024;

/// A caller that waits.
pub(crate) struct Waiter {
    answer: Answer,
    /// How many attempts to commit had begun when it came.
    came: u64,
}

impl Waiter {
    pub(crate) fn new(answer: Answer, came: u64) -> Self {
        Self { answer, came }
    }

    /// Whether an attempt has begun since it came.
    pub(crate) fn came_before(&self, attempt: u64) -> bool {
        self.came < attempt
    }

    pub(crate) fn has_left(&self) -> bool {
        self.answer.is_closed()
    }
}

/// Gives all of them the same answer.
pub(crate) fn answer_all(waiters: impl IntoIterator<Item = Waiter>, result: &Result<()>) {
    for waiter in waiters {
        // A caller that stopped waiting needs no answer.
        let _ = waiter.answer.send(result.clone());
    }
}

/// The event that a save waits for.
pub(crate) enum Awaited {
    /// The change of this key, or a later one.
    Key(Arc<str>),
    /// The last clear.
    Clear,
}

/// The callers that wait for saves. Finding those of one key is O(1), however many
/// wait for other keys.
#[derive(Default)]
pub(crate) struct Waiters {
    by_key: HashMap<Arc<str>, Vec<Waiter>>,
    /// The keys in the order in which their first waiters came. A key whose waiters
    /// were taken by name may still be here.
    order: VecDeque<Arc<str>>,
    of_clear: Vec<Waiter>,
    /// The number of waiters at which abandoned ones are searched for.
    room: usize,
}

impl Waiters {
    /// Adds a caller. When the number of waiters has doubled, abandoned ones are
    /// dropped first: callers that save and give up again and again while the store
    /// is down would otherwise fill the memory.
    pub(crate) fn push(&mut self, what: Awaited, waiter: Waiter) {
        if self.by_key.len() + self.of_clear.len() >= self.room.max(FEW) {
            self.retain_present();
            self.room = 2 * (self.by_key.len() + self.of_clear.len());
        }
        match what {
            Awaited::Clear => self.of_clear.push(waiter),
            Awaited::Key(key) => self.add(key, [waiter]),
        }
    }

    fn retain_present(&mut self) {
        self.of_clear.retain(|waiter| !waiter.has_left());
        self.by_key.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.has_left());
            !waiters.is_empty()
        });
        let listed = &self.by_key;
        self.order.retain(|key| listed.contains_key(key));
    }

    /// Adds callers that wait for this key.
    pub(crate) fn add(&mut self, key: Arc<str>, waiters: impl IntoIterator<Item = Waiter>) {
        if let Some(listed) = self.by_key.get_mut(&key) {
            // The list of a single key must not grow either, if callers save and
            // give up again and again.
            if listed.len() >= FEW && listed.len().is_power_of_two() {
                listed.retain(|waiter| !waiter.has_left());
            }
            listed.extend(waiters);
            return;
        }
        let waiters: Vec<_> = waiters.into_iter().collect();
        if !waiters.is_empty() {
            self.order.push_back(key.clone());
            self.by_key.insert(key, waiters);
        }
    }

    /// Takes the callers of the key that has been waited for longest.
    pub(crate) fn pop(&mut self) -> Option<(Arc<str>, Vec<Waiter>)> {
        while let Some(key) = self.order.pop_front() {
            if let Some(waiters) = self.by_key.remove(&key) {
                return Some((key, waiters));
            }
        }
        None
    }

    /// Takes the callers that wait for this key.
    pub(crate) fn take(&mut self, key: &str) -> Vec<Waiter> {
        self.by_key.remove(key).unwrap_or_default()
    }

    /// Takes the callers that wait for the last clear.
    pub(crate) fn take_of_clear(&mut self) -> Vec<Waiter> {
        mem::take(&mut self.of_clear)
    }

    pub(crate) fn add_of_clear(&mut self, waiters: Vec<Waiter>) {
        self.of_clear.extend(waiters);
    }

    /// Puts back callers that came before those that are here.
    pub(crate) fn put_back(&mut self, mut earlier: Self) {
        // The smaller collection is moved, because this happens often.
        if earlier.by_key.len() >= self.by_key.len() {
            mem::swap(self, &mut earlier);
            while let Some((key, waiters)) = earlier.pop() {
                self.add(key, waiters);
            }
        } else {
            while let Some(key) = earlier.order.pop_back() {
                if let Some(waiters) = earlier.by_key.remove(&key) {
                    self.order.push_front(key.clone());
                    self.by_key.entry(key).or_default().splice(0..0, waiters);
                }
            }
        }
        self.room = self.room.max(earlier.room);
        self.of_clear.append(&mut earlier.of_clear);
    }

    /// Takes the callers that came before that attempt began.
    pub(crate) fn take_early(&mut self, attempt: u64) -> Vec<Waiter> {
        let mut early = take_early(&mut self.of_clear, attempt);
        self.by_key.retain(|_, waiters| {
            early.append(&mut take_early(waiters, attempt));
            !waiters.is_empty()
        });
        let listed = &self.by_key;
        self.order.retain(|key| listed.contains_key(key));
        early
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.of_clear.is_empty()
    }

    /// Gives every caller the same answer.
    pub(crate) fn answer(self, result: &Result<()>) {
        answer_all(self.of_clear, result);
        answer_all(self.by_key.into_values().flatten(), result);
    }
}

/// Takes those that came before that attempt began.
pub(crate) fn take_early(waiters: &mut Vec<Waiter>, attempt: u64) -> Vec<Waiter> {
    let all = mem::take(waiters).into_iter();
    let (early, late) = all.partition(|waiter| waiter.came_before(attempt));
    *waiters = late;
    early
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter() -> (Waiter, oneshot::Receiver<Result<()>>) {
        let (answer, answered) = oneshot::channel();
        (Waiter::new(answer, 0), answered)
    }

    fn count(waiters: &Waiters) -> usize {
        waiters.of_clear.len() + waiters.by_key.values().map(Vec::len).sum::<usize>()
    }

    fn drain(waiters: &mut Waiters) -> Vec<(String, usize)> {
        let taken = std::iter::from_fn(|| waiters.pop());
        taken.map(|(key, w)| (key.to_string(), w.len())).collect()
    }

    fn owned((key, count): (&str, usize)) -> (String, usize) {
        (key.to_owned(), count)
    }

    /// Each save while the store was down kept its waiter until the store was back,
    /// although its caller had given up long before.
    #[test]
    fn abandoned_waiters_do_not_pile_up() {
        for key in [None, Some("same")] {
            let (mut waiters, mut held) = (Waiters::default(), Vec::new());
            for n in 0..100_000 {
                let (waiter, answered) = waiter();
                let key = key.map_or_else(|| n.to_string().into(), Arc::from);
                waiters.push(Awaited::Key(key), waiter);
                held.extend((n % 1_000 == 0).then_some(answered));
                assert!(count(&waiters) <= 4_000, "{}", count(&waiters));
                assert!(waiters.order.len() <= 4_000);
            }
            waiters.retain_present();
            assert_eq!(count(&waiters), held.len());
        }
    }

    #[test]
    fn keys_are_taken_in_the_order_in_which_they_were_first_waited_for() {
        let mut waiters = Waiters::default();
        for key in ["a", "b", "a", "c"] {
            waiters.push(Awaited::Key(key.into()), waiter().0);
        }
        let mut later = Waiters::default();
        later.push(Awaited::Key("d".into()), waiter().0);
        later.push(Awaited::Key("a".into()), waiter().0);
        assert_eq!(waiters.take("b").len(), 1);
        later.put_back(waiters);
        assert_eq!(drain(&mut later), [("a", 3), ("c", 1), ("d", 1)].map(owned));
        assert!(later.is_empty());
    }

    #[test]
    fn few_waiters_are_put_back_before_many() {
        let (mut many, mut few) = (Waiters::default(), Waiters::default());
        for key in ["b", "c", "a"] {
            many.push(Awaited::Key(key.into()), waiter().0);
        }
        few.push(Awaited::Key("a".into()), waiter().0);
        many.put_back(few);
        assert_eq!(drain(&mut many), [("a", 2), ("b", 1), ("c", 1)].map(owned));
    }

    #[test]
    fn callers_that_came_after_the_attempt_began_keep_waiting() {
        let mut waiters = Waiters::default();
        for (key, came) in [("a", 1), ("a", 2), ("b", 2)] {
            let waiter = Waiter::new(waiter().0.answer, came);
            waiters.push(Awaited::Key(key.into()), waiter);
        }
        assert_eq!(waiters.take_early(2).len(), 1);
        assert_eq!(count(&waiters), 2);
    }
}
