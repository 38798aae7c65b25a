//! Random histories of maps that many use at once, on a store that fails in
//! every way: whether each memory and the store hold what they may.
//!
//! A history has some phases. In each, two maps are open, one of them caching,
//! by one owner or by two; a handful of tasks does with them whatever can be
//! done, while calls of the store fail before or after they take effect, are
//! refused, hang, and land late. Then the store gets well, or the program is
//! killed. Time is paused, so a history takes milliseconds. What is checked:
//!
//! - Each memory holds what was written to it last, after every step.
//! - The store holds of each key what was acknowledged last, or something later:
//!   after every acknowledgement, and when all maps are gone.
//! - It never goes back, and of what is committed as one there is all or nothing.
//! - Unreadable records are never destroyed.
//! - No caller waits for ever; when the store is healthy, memory and store agree, and
//!   nothing is pending or refused.
//!
//! `tests/soak.sh` runs as many of them as one asks for. A seed makes the same
//! history each time, up to the moments at which real disks answer.

mod actor;
mod book;
mod held;
mod history;
mod joint;
mod phase;
mod place;
mod seeds;
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
