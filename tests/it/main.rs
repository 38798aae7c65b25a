//! Every test of the crate, a file per subject.

mod atomic;
mod caching;
#[cfg(feature = "sqlite")]
mod children;
mod close;
mod closures;
mod conditional;
#[cfg(feature = "sqlite")]
mod counting;
#[cfg(all(feature = "json", feature = "sqlite"))]
mod crash;
mod errors;
mod faults;
mod flush;
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
mod shapes;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod stored;
mod testing;
#[cfg(feature = "sqlite")]
mod transfers;
