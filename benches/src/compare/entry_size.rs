//! Resident memory per entry.
//!
//! Each contender fills a map in a process of its own.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use dashmap::DashMap;
use moka::sync::Cache;
use persistify_benches::{Customer, Unit, runtime};

use crate::{
    Bench, child,
    ours::Ours,
    resident::resident,
    shared_map::SharedMap,
    work::{Role, Row, Work},
};

const ENTRIES: usize = 200_000;

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
        work.add(role, name, "–", move || child::measure(name));
    }
    work.run_cold(bench.rounds(3, 1))
}

/// Takes a turn in a child process; `None` if the task is not one of this subject.
pub fn run_as_child(task: &str) -> Option<Vec<f64>> {
    let (.., fill) = CONTENDERS.into_iter().find(|(_, name, _)| *name == task)?;
    Some(vec![fill()])
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
    (resident() - before) / ENTRIES as f64
}
