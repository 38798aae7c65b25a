//! A load of inserts at a fixed rate, before, during and after an event.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use persistify_benches::{Customer, timed};

use crate::shared_map::SharedMap;

/// The inserts of all threads together in a second.
pub const RATE: usize = 20_000;
pub const THREADS: usize = 2;

/// The keys that the map has before. Overwriting them takes no more memory.
const KEYS: usize = 100_000;
/// One insert of so many is of a new key.
const NEW_KEYS: usize = 10;

/// How often a thread wakes up, to insert what is due. Threads that spun until each insert
/// is due would leave no core to the flusher.
const TICK: Duration = Duration::from_millis(1);
const INSERTS_PER_TICK: usize = RATE / THREADS / 1_000;

/// The phases: before, during and after the event.
const PHASES: usize = 3;

/// The phase that the load is in.
pub struct Phase(AtomicUsize);

impl Phase {
    pub fn next(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// `None` once the load has ended.
    fn now(&self) -> Option<usize> {
        Some(self.0.load(Relaxed)).filter(|phase| *phase < PHASES)
    }
}

/// Ends the load, even if the caller panics.
struct Ending<'a>(&'a Phase);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.0.store(PHASES, Relaxed);
    }
}

/// The latencies of the inserts of each phase.
pub type Latencies = [Vec<f64>; PHASES];

/// Inserts the keys that are not new.
pub fn fill(map: &impl SharedMap) {
    for number in 0..KEYS {
        map.put(&old_key(number), Customer::new(number, 0));
    }
    map.settle();
}

/// Inserts while `event` runs, which moves the phase on. No phase but the last may last
/// longer than `longest`.
pub fn under_load<T>(
    map: &impl SharedMap,
    longest: Duration,
    event: impl FnOnce(&Phase) -> T,
) -> (Latencies, T) {
    let phase = &Phase(AtomicUsize::new(0));
    thread::scope(|scope| {
        let ending = Ending(phase);
        let threads = (0..THREADS).map(|thread| {
            let latencies = touched(longest);
            scope.spawn(move || insert(map, phase, thread, latencies))
        });
        let threads: Vec<_> = threads.collect();
        let result = event(phase);
        drop(ending);
        let all = threads
            .into_iter()
            .map(|one| one.join().expect("latencies"));
        (merged(all), result)
    })
}

/// Lists with memory that is resident already, so that it is not counted as the map's.
fn touched(longest: Duration) -> Latencies {
    let inserts = RATE / THREADS * usize::try_from(longest.as_secs() + 1).expect("a short time");
    std::array::from_fn(|_| {
        let mut list = vec![f64::NAN; inserts];
        list.clear();
        list
    })
}

fn merged(all: impl Iterator<Item = Latencies>) -> Latencies {
    all.reduce(|mut all, more| {
        for (all, more) in all.iter_mut().zip(more) {
            all.extend(more);
        }
        all
    })
    .expect("threads")
}

/// A thread that was late catches up, so the rate does not depend on the map.
fn insert(
    map: &impl SharedMap,
    phase: &Phase,
    thread: usize,
    mut latencies: Latencies,
) -> Latencies {
    let mut random = fastrand::Rng::with_seed(thread as u64);
    let mut due = Instant::now();
    for turn in 0.. {
        let Some(phase) = phase.now() else { break };
        let number = turn * THREADS + thread;
        let key = key(turn, number, &mut random);
        let customer = Customer::new(number, 0);
        let time = timed(|| map.put(&key, customer));
        latencies[phase].push(time.as_secs_f64() * 1e9);
        if (turn + 1).is_multiple_of(INSERTS_PER_TICK) {
            due += TICK;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    latencies
}

fn key(turn: usize, number: usize, random: &mut fastrand::Rng) -> String {
    if turn.is_multiple_of(NEW_KEYS) {
        return format!("new:{number:08}");
    }
    old_key(random.usize(..KEYS))
}

fn old_key(number: usize) -> String {
    format!("customer:{number:08}")
}
