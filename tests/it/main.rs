//! Every test of the crate, a file per subject.

mod caching;
mod errors;
mod house;
mod map;
mod names;
mod providers;
mod races;
mod readme;
mod reload;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stored;
mod testing;
