//! Random histories of concurrently used maps on a store that fails in every way. Each memory and
//! the store may only have the values that the calls permit.
//!
//! A history has a few phases. In each, two maps are open, one of them caching, with one owner
//! or two. A handful of tasks makes all kinds of calls, while calls of the store fail before or
//! after they take effect, are refused, hang, and are applied late. Then the store recovers, or
//! the program is killed. Time is paused, so a history takes milliseconds. The invariants:
//!
//! - After every step, each memory has the last write.
//! - For each key, the store has the last acknowledged write, or a later one: after every
//!   acknowledgement, and when all maps are gone.
//! - The store never goes back, and an atomic commit is applied completely or not at all.
//! - Unreadable records are never destroyed.
//! - No caller waits forever; when the store is healthy, memory and store agree, and nothing is
//!   pending or refused.
//!
//! `tests/soak.sh` runs any number of histories. A seed produces the same history each time,
//! except for the moments at which real disks answer.

mod actor;
mod book;
mod held;
mod history;
mod joint;
mod phase;
mod place;
mod seeds;
mod stack;
mod stored;
mod terms;
mod tested;
mod trace;
mod trouble;
mod whole;
mod world;
mod writes;

use self::{place::Kind, seeds::soak};

#[test]
fn histories_in_memory() {
    soak("in_memory", Kind::Memory, 20);
}

#[cfg(feature = "json")]
#[test]
fn histories_in_json_files() {
    soak("in_json_files", Kind::JsonFile, 2);
}

#[cfg(feature = "sqlite")]
#[test]
fn histories_on_sqlite() {
    soak("on_sqlite", Kind::Sqlite, 2);
}
