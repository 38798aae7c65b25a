//! The seeds of the histories, and the report of a failing one.

use std::{
    env,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{history::history, place::Kind};

/// The real time after which a history counts as hanging.
const PATIENCE: Duration = Duration::from_mins(2);

/// The number of runs of a single seed. Disks do not answer at the same moments each time.
const REPEATS: u64 = 50;

/// The seeds to try, in order.
enum Seeds {
    Some(u64),
    For(u64, Instant),
    Again(u64),
}

impl Seeds {
    /// The seeds that `tests/soak.sh` asks for, or else a few fixed ones.
    fn wanted(few: u64) -> Self {
        let number = |name| env::var(name).ok().map(|n| n.parse().expect("a number"));
        if let Some(seed) = number("PERSISTIFY_SOAK_SEED") {
            return Self::Again(seed);
        }
        let from = number("PERSISTIFY_SOAK_FROM").unwrap_or(0);
        let time = number("PERSISTIFY_SOAK_SECONDS").map(Duration::from_secs);
        time.map_or(Self::Some(few), |time| {
            Self::For(from, Instant::now() + time)
        })
    }

    fn nth(&self, n: u64) -> Option<u64> {
        match *self {
            Self::Some(few) => (n < few).then_some(n),
            Self::For(from, end) => (Instant::now() < end).then_some(from + n),
            Self::Again(seed) => (n < REPEATS).then_some(seed),
        }
    }

    fn number(&self, n: u64) -> u64 {
        match *self {
            Self::Some(_) => n,
            Self::For(from, _) => from + n,
            Self::Again(seed) => seed,
        }
    }
}

/// Runs one history after the other, until one fails.
pub(super) fn soak(test: &str, kind: Kind, few: u64) {
    let seeds = Seeds::wanted(few);
    let mut tried = 0;
    while let Some(seed) = seeds.nth(tried) {
        assert!(
            goes_well(kind, seed),
            "seed {seed} fails, after {tried} that went well; repeat it with\n    \
             PERSISTIFY_SOAK_SEED={seed} tests/soak.sh 0 {test}"
        );
        tried += 1;
    }
    let (first, end) = (seeds.number(0), seeds.number(tried));
    println!("histories_{test}: {tried} went well, of the seeds {first}..{end}");
}

/// Runs a history on a thread of its own, so that a hanging one is noticed. Such a thread is
/// abandoned.
fn goes_well(kind: Kind, seed: u64) -> bool {
    let (done, ended) = mpsc::channel();
    let apart = thread::Builder::new().name(format!("seed {seed}"));
    let apart = apart.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(history(kind, seed));
        let _nobody_waits = done.send(());
    });
    apart.unwrap();
    ended.recv_timeout(PATIENCE).is_ok()
}
