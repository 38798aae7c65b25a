//! Resident memory per entry.
//!
//! Each contender fills a map in a process of its own.

use std::{
    collections::HashMap,
    env, fs,
    process::Command,
    sync::{Arc, RwLock},
};

use dashmap::DashMap;
use moka::sync::Cache;
use persistify_benches::{Customer, runtime};

use crate::{
    Bench,
    ours::Ours,
    shared_map::SharedMap,
    work::{Role, Row, Unit, Work},
};

const ENTRIES: usize = 200_000;
const CHILD: &str = "PERSISTIFY_BENCH_CHILD";

/// Fills a map and returns its bytes per entry.
type Fill = fn() -> f64;

const CONTENDERS: [(Role, &str, Fill); 6] = [
    (Role::Ours, "Persistify, store discards", || {
        filled(&Ours::discarding(&runtime()))
    }),
    (Role::Ours, "Persistify Sqlite", || {
        filled(&Ours::in_sqlite(&runtime()))
    }),
    (Role::Peer, "DashMap", || {
        filled(&DashMap::<Box<str>, Customer>::new())
    }),
    (Role::Peer, "papaya", || {
        filled(&papaya::HashMap::<Box<str>, Customer>::new())
    }),
    (Role::Peer, "moka", || {
        filled(&Cache::<Box<str>, Arc<Customer>>::builder().build())
    }),
    (Role::Peer, "RwLock<HashMap>", || {
        filled(&RwLock::new(HashMap::<Box<str>, Customer>::new()))
    }),
];

pub fn run(bench: &Bench) -> Vec<Row> {
    let name = format!("entry-size, {ENTRIES} entries, all saved");
    let mut work = Work::measured(name, &["resident memory per entry"], Unit::Bytes);
    for (role, name, _) in CONTENDERS {
        work.add(role, name, "–", move || vec![measure(name)]);
    }
    work.run(bench.rounds(3, 1))
}

fn measure(name: &str) -> f64 {
    let this = env::current_exe().expect("a path of this program");
    let child = Command::new(this).env(CHILD, name).output();
    let printed = child.expect("a child process").stdout;
    let printed = String::from_utf8(printed).expect("a line of text");
    printed.trim().parse().expect("a number")
}

pub fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

pub fn run_as_child() {
    let wanted = env::var(CHILD).expect("a name");
    let (.., fill) = CONTENDERS
        .into_iter()
        .find(|(_, name, _)| *name == wanted)
        .expect("a contender");
    println!("{}", fill());
}

/// Fills the map. The keys and values are made one by one, so that they leave no garbage.
#[expect(
    clippy::cast_precision_loss,
    reason = "a bench holds far fewer bytes than that"
)]
fn filled(map: &impl SharedMap) -> f64 {
    let before = resident();
    for n in 0..ENTRIES {
        map.put(&format!("customer:{n:08}"), Customer::new(n, 0));
    }
    map.settle();
    (resident() - before) as f64 / ENTRIES as f64
}

/// The resident memory of this process in bytes, as Linux reports it.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: u64 = kilobytes
        .and_then(|word| word.parse().ok())
        .expect("a number");
    kilobytes * 1_024
}
