//! Memory per entry, compared with a bare `DashMap`.
//!
//! Each side is measured in a process of its own, as the bytes that are allocated and
//! not freed.

use std::{alloc::System, env, process::Command};

use dashmap::DashMap;
use persistify_benches::{Discard, open, runtime};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ENTRIES: usize = 1_000_000;
const SIDE: &str = "PERSISTIFY_BENCH_SIDE";

fn main() {
    match env::var(SIDE).as_deref() {
        Ok("ours") => print(fill_ours()),
        Ok(_) => print(fill_peer()),
        Err(_) => compare(),
    }
}

fn compare() {
    let (ours, peer) = (measure("ours"), measure("peer"));
    println!(
        "{:<52} {:>7} {:>7} {:>7} {:>7}",
        "bytes per entry", "more", "target", "ours", "peer"
    );
    println!(
        "{:<52} {:>7.1} {:>7} {ours:>7.1} {peer:>7.1}",
        "1M entries, all saved / DashMap<Box<str>, u64>",
        ours - peer,
        56
    );
}

fn measure(side: &str) -> f64 {
    let this = env::current_exe().expect("a path of this program");
    let child = Command::new(this).env(SIDE, side).output();
    let printed = child.expect("a child process").stdout;
    let printed = String::from_utf8(printed).expect("a line of text");
    printed.trim().parse().expect("a number")
}

/// Keys of 17 to 24 bytes. With keys of one length, the allocator's rounding would
/// distort the result.
fn keys() -> Vec<String> {
    let key = |n| format!("customer:{n:0width$}", width = 8 + n % 8);
    (0..ENTRIES).map(key).collect()
}

fn print(bytes_each: f64) {
    println!("{bytes_each}");
}

fn fill_ours() -> f64 {
    let (runtime, keys) = (runtime(), keys());
    let before = Region::new(ALLOCATOR);
    let map = open(&runtime, Discard);
    for (key, value) in keys.iter().zip(0_u64..) {
        map.insert(key, value);
    }
    // A batch is freed after its waiters are answered; when the second flush returns,
    // the last batch is freed.
    for _ in 0..2 {
        runtime.block_on(map.flush()).expect("everything saved");
    }
    bytes_each(&before)
}

fn fill_peer() -> f64 {
    let keys = keys();
    let before = Region::new(ALLOCATOR);
    let map: DashMap<Box<str>, u64> = DashMap::new();
    for (key, value) in keys.iter().zip(0..) {
        map.insert(key.as_str().into(), value);
    }
    bytes_each(&before)
}

/// The bytes per entry that were allocated since then and are not freed.
#[expect(
    clippy::cast_precision_loss,
    reason = "a bench holds far fewer bytes than that"
)]
fn bytes_each(since: &Region<'_, System>) -> f64 {
    let change = since.change();
    let held = change.bytes_allocated - change.bytes_deallocated;
    held as f64 / ENTRIES as f64
}
