//! All tests of the crate, one file per subject.

#![allow(
    clippy::incompatible_msrv,
    reason = "users compile the crate, not its tests"
)]

mod atomic;
mod blocking;
mod caching;
mod close;
#[cfg(feature = "json")]
mod close_on_drop;
mod closures;
mod codec;
mod conditional;
mod conflicts;
mod connect;
mod copying;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod counting;
#[cfg(all(feature = "json", feature = "sqlite"))]
mod crash;
mod dropped;
mod entry;
mod errors;
mod exports;
mod fate;
mod faults;
mod flush;
mod house;
#[cfg(feature = "json")]
mod json_file;
mod layers;
mod logs;
mod manifest;
mod map;
mod migrations;
mod model;
mod names;
#[cfg(feature = "postgres")]
mod postgres;
mod providers;
mod public_api;
mod races;
mod readme;
mod reload;
mod rewind;
mod single_flight;
mod soak;
#[cfg(feature = "sqlite")]
mod sqlite;
mod support;
mod testing;
#[cfg(feature = "sqlite")]
mod transfers;
