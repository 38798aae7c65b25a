//! A store that is down for seconds while threads insert.
//!
//! Each contender takes its turn in a process of its own, which has no memory of other
//! contenders.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use persistify::Sqlite;
use persistify_benches::{Customer, Unit, runtime};

use crate::{
    Bench, child, folder,
    latencies::quantiles,
    ours::Ours,
    resident::resident,
    steady::{Latencies, Phase, RATE, THREADS, fill, under_load},
    switched::Switched,
    work::{Role, Row, Work, total},
};

const LATENCIES: [&str; 9] = [
    "p50 of insert before the outage",
    "p99 of insert before the outage",
    "p99.9 of insert before the outage",
    "p50 of insert during the outage",
    "p99 of insert during the outage",
    "p99.9 of insert during the outage",
    "p50 of insert after the outage",
    "p99 of insert after the outage",
    "p99.9 of insert after the outage",
];
const MEMORY: [&str; 2] = [
    "resident memory before the outage",
    "resident memory at the end of the outage",
];
const PENDING: &str = "largest number of pending changes";
/// Until no more changes are pending than before the outage: under load, some always are.
const SAVED: &str = "time until the changes of the outage are saved";

/// A contender by its name in the table and in the task of its process.
type Contender = (Role, &'static str, &'static str);

const NO_CALLER: Contender = (
    Role::Ours,
    "Persistify Sqlite, no caller waits",
    "no-caller",
);
const FLUSH: Contender = (Role::Ours, "Persistify Sqlite, a flush waits", "flush");
const BARE: Contender = (Role::Peer, "DashMap, saves nothing", "bare");

/// As long as the default patience of a map, whose last attempt comes just after.
const OUTAGE: u64 = 10;
/// Longer than the patience: the map waits for a caller, or for its next probe.
const LONG_OUTAGE: u64 = 15;
const QUICK_OUTAGE: u64 = 3;

/// How long the time before the outage is, and at least the time after it.
const AROUND: Duration = Duration::from_secs(2);

pub fn run(bench: &Bench) -> Vec<Row> {
    if bench.quick {
        return compare(QUICK_OUTAGE, &[FLUSH, BARE], 1);
    }
    let mut rows = compare(OUTAGE, &[NO_CALLER, FLUSH, BARE], 3);
    // The probes have no jitter, so one round shows them.
    rows.extend(compare(LONG_OUTAGE, &[NO_CALLER, FLUSH], 1));
    rows
}

fn compare(seconds: u64, contenders: &[Contender], rounds: usize) -> Vec<Row> {
    let name = format!("outage of {seconds} s, {RATE} inserts a second by {THREADS} threads");
    let mut work = Work::measured(name, &LATENCIES, Unit::Nanoseconds)
        .and(&MEMORY, Unit::Bytes)
        .and(&[PENDING], Unit::Changes)
        .and(&[SAVED], Unit::Nanoseconds);
    for (role, name, task) in contenders {
        let fsync = if *role == Role::Ours {
            "each commit"
        } else {
            "never"
        };
        let task = format!("outage {task} {seconds}");
        work.add(*role, *name, fsync, move || child::measure(&task));
    }
    work.run_cold(rounds)
}

/// Takes a turn in a child process; `None` if the task is not one of this subject.
pub fn run_as_child(task: &str) -> Option<Vec<f64>> {
    let (contender, seconds) = task.strip_prefix("outage ")?.split_once(' ')?;
    let outage = Duration::from_secs(seconds.parse().ok()?);
    Some(match contender {
        "bare" => bare(outage),
        contender => ours(outage, contender == "flush"),
    })
}

/// The same load on a map without a store.
fn bare(outage: Duration) -> Vec<f64> {
    let map = DashMap::<Box<str>, Customer>::new();
    fill(&map);
    let (latencies, memory) = under_load(&map, outage, |phase| {
        thread::sleep(AROUND);
        let before = resident();
        phase.next();
        thread::sleep(outage);
        let end = resident();
        phase.next();
        thread::sleep(AROUND);
        [before, end]
    });
    numbers(latencies, memory)
}

fn ours(outage: Duration, with_flush: bool) -> Vec<f64> {
    let (runtime, folder) = (runtime(), folder());
    let file = runtime.block_on(Sqlite::open(folder.path().join("ours.db")));
    let store = Arc::new(Switched::new(file.expect("an open file")));
    let ours = Ours::new("Persistify Sqlite", &runtime, store.clone(), folder);
    fill(&ours);
    let (latencies, observed) = under_load(&ours, outage, |phase| {
        observe(&ours, &store, phase, outage, with_flush)
    });
    runtime.block_on(ours.map.close()).expect("all saved");
    let mut numbers = numbers(latencies, observed.memory);
    numbers.push(observed.pending);
    numbers.extend(total(observed.saved));
    numbers
}

struct Observed {
    memory: [f64; 2],
    pending: f64,
    saved: Duration,
}

/// Switches the store off and on again.
fn observe(
    ours: &Ours<'_>,
    store: &Switched<Sqlite>,
    phase: &Phase,
    outage: Duration,
    with_flush: bool,
) -> Observed {
    let usual = most_pending(ours, |since, _| since >= AROUND);
    let before = resident();
    store.switch_off();
    phase.next();
    let during = most_pending(ours, |since, _| since >= outage);
    let end = resident();
    store.switch_on();
    phase.next();
    if with_flush {
        let map = ours.map.clone();
        ours.runtime.spawn(async move { map.flush().await });
    }
    let is_up = Instant::now();
    let after = most_pending(ours, |_, pending| pending <= usual);
    let saved = is_up.elapsed();
    thread::sleep(AROUND.saturating_sub(saved));
    Observed {
        memory: [before, end],
        pending: u32::try_from(during.max(after))
            .expect("a small number")
            .into(),
        saved,
    }
}

/// Watches the pending changes until `is_over`, which gets the time since the beginning and
/// their number; returns their largest number.
fn most_pending(ours: &Ours<'_>, is_over: impl Fn(Duration, usize) -> bool) -> usize {
    let (start, mut most) = (Instant::now(), 0);
    loop {
        let pending = ours.map.pending();
        most = most.max(pending);
        if is_over(start.elapsed(), pending) {
            return most;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn numbers(latencies: Latencies, memory: [f64; 2]) -> Vec<f64> {
    let latencies = latencies.into_iter().flat_map(quantiles);
    latencies.chain(memory).collect()
}
