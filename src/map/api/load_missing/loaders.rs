//! Single flight: one load at a time for each key, with one result for all waiting
//! callers.

use std::{any::Any, collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{self, MutexGuard};

/// The loads in progress, by key. A key is listed while a caller has a seat at its
/// load, so the list needs no sweeping.
#[derive(Default)]
pub(crate) struct Loaders(Mutex<HashMap<Arc<str>, Arc<Load>>>);

/// One load. The caller that holds the lock runs its loader; the others wait for
/// the lock. If that caller is dropped or panics, it leaves no outcome, and the
/// next one loads.
type Load = sync::Mutex<Option<LoaderResult>>;

/// The outcome of a load.
#[derive(Clone)]
enum LoaderResult {
    /// The value was inserted.
    Loaded,
    /// An error, of the type that the loader returned.
    Failed(Arc<dyn Any + Send + Sync>),
}

/// The next step of a caller that has waited.
pub(crate) enum NextStep<'a, E> {
    /// Run its loader, unless there is a value now.
    Load(Loading<'a>),
    /// Return the error of the load that it waited for.
    Share(Arc<E>),
    /// Start over: the load is finished, and this caller cannot use its outcome.
    Again,
}

/// A caller's place at a load, loading or waiting.
pub(crate) struct Seat<'a> {
    loaders: &'a Loaders,
    key: &'a str,
    /// Only `drop` takes it.
    load: Option<Arc<Load>>,
}

/// The right to run a loader.
pub(crate) struct Loading<'a> {
    seat: &'a Seat<'a>,
    outcome: MutexGuard<'a, Option<LoaderResult>>,
}

impl Loaders {
    /// A seat at the load of this key that is under way, or at a new one.
    pub(crate) fn seat<'a>(&'a self, key: &'a str) -> Seat<'a> {
        let mut loads = self.0.lock();
        let load = match loads.get(key) {
            Some(load) => load.clone(),
            None => loads.entry(key.into()).or_default().clone(),
        };
        Seat {
            loaders: self,
            key,
            load: Some(load),
        }
    }

    /// Makes later callers start a load of their own.
    fn forget(&self, key: &str, load: &Arc<Load>) {
        let mut loads = self.0.lock();
        if loads
            .get(key)
            .is_some_and(|listed| Arc::ptr_eq(listed, load))
        {
            loads.remove(key);
        }
    }
}

impl Seat<'_> {
    /// Waits until no other caller at this load runs its loader.
    pub(crate) async fn turn<E: Send + Sync + 'static>(&self) -> NextStep<'_, E> {
        let Some(load) = &self.load else {
            return NextStep::Again;
        };
        let outcome = load.lock().await;
        match outcome.clone() {
            None => NextStep::Load(Loading {
                seat: self,
                outcome,
            }),
            Some(LoaderResult::Loaded) => NextStep::Again,
            // The error may be of another type than this caller's.
            Some(LoaderResult::Failed(error)) => {
                error.downcast().map_or(NextStep::Again, NextStep::Share)
            }
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let Some(load) = self.load.take() else {
            return;
        };
        let mut loads = self.loaders.0.lock();
        let listed = loads.get(self.key);
        if listed.is_some_and(|listed| Arc::ptr_eq(listed, &load)) {
            // Seats are taken and given up under this lock, so the last caller sees
            // that none is left. It has no outcome to drop.
            drop(load);
            if loads
                .get(self.key)
                .is_some_and(|load| Arc::strong_count(load) == 1)
            {
                loads.remove(self.key);
            }
        }
    }
}

impl Loading<'_> {
    /// Ends the load: the value was inserted.
    pub(crate) fn loaded(self) {
        self.end(LoaderResult::Loaded);
    }

    /// Ends the load: all callers that wait for it fail with this error.
    pub(crate) fn failed<E: Send + Sync + 'static>(self, error: E) -> Arc<E> {
        let error = Arc::new(error);
        self.end(LoaderResult::Failed(error.clone()));
        error
    }

    /// Delists the load before waking the waiting callers: no caller can take a
    /// seat in between, so all callers with a seat waited for this outcome.
    fn end(mut self, outcome: LoaderResult) {
        if let Some(load) = &self.seat.load {
            self.seat.loaders.forget(self.seat.key, load);
        }
        *self.outcome = Some(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_listed_while_a_caller_has_a_seat_at_it() {
        let loaders = Loaders::default();
        let (first, second) = (loaders.seat("a"), loaders.seat("a"));
        let other = loaders.seat("b");
        assert!(Arc::ptr_eq(
            first.load.as_ref().unwrap(),
            second.load.as_ref().unwrap()
        ));
        drop(first);
        assert_eq!(loaders.0.lock().len(), 2);
        drop((second, other));
        assert!(loaders.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_caller_that_arrives_after_a_load_starts_a_new_one() {
        let loaders = Loaders::default();
        let (first, waiting) = (loaders.seat("a"), loaders.seat("a"));
        let NextStep::Load(loading) = first.turn::<&str>().await else {
            panic!("no other caller loads");
        };
        loading.failed("down");
        let later = loaders.seat("a");
        assert!(matches!(waiting.turn::<&str>().await, NextStep::Share(e) if *e == "down"));
        assert!(matches!(waiting.turn::<u8>().await, NextStep::Again));
        drop((first, waiting));
        assert!(matches!(later.turn::<&str>().await, NextStep::Load(_)));
        drop(later);
        assert!(loaders.0.lock().is_empty());
    }

    /// Each new load used to scan all others, under the lock that all callers need:
    /// 200,000 concurrent loads took minutes.
    #[test]
    fn starting_a_load_does_not_scan_the_others() {
        let loaders = Loaders::default();
        let keys: Vec<_> = (0..200_000).map(|n| n.to_string()).collect();
        let seats: Vec<_> = keys.iter().map(|key| loaders.seat(key)).collect();
        assert_eq!(loaders.0.lock().len(), seats.len());
        drop(seats);
        assert!(loaders.0.lock().is_empty());
    }
}
