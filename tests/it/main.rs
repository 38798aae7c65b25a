//! Every test of the crate, a file per subject.

mod caching;
#[cfg(all(feature = "json", feature = "sqlite"))]
mod crash;
mod errors;
mod house;
#[cfg(feature = "json")]
mod json_file;
mod map;
mod model;
mod names;
mod providers;
mod races;
mod readme;
mod reload;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stored;
mod testing;
