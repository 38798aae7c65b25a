//! Every test of the crate, a file per subject.

mod errors;
mod house;
mod map;
mod names;
mod providers;
mod races;
#[cfg(feature = "sqlite")]
mod sqlite;
mod testing;
