//! Shared by the tests: stores, maps, writers without a map, child processes.

#![allow(
    dead_code,
    unused_imports,
    reason = "each feature uses some of these only"
)]

mod batches;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod child;
mod maps;
#[cfg(feature = "metrics")]
mod recorder;
pub(crate) mod records;
mod store;
mod time;
mod warnings;
mod writer;

pub(crate) use batches::{keys, told};
pub(crate) use maps::{
    as_it_is, builder, impatient, in_memory, open, open_caching, open_numbers, pairs, steady,
};
#[cfg(feature = "metrics")]
pub(crate) use recorder::TestRecorder;
pub(crate) use records::{records, stored_values};
pub(crate) use store::{Plain, Store, records_in, store, stored, stored_in};
pub(crate) use time::{HOUR, MINUTE, SECOND, settle, start};
pub(crate) use warnings::warnings_of;
pub(crate) use writer::{Pen, map_name, name, put, write_as_another};
