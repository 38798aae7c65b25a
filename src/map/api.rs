//! The public methods of a map, one file per purpose.

pub(crate) mod atomic_batch;
pub(crate) mod builder;
pub(crate) mod close_on_drop;
mod conditional;
pub(crate) mod entry;
mod export;
pub(crate) mod iterate;
pub(crate) mod load_missing;
#[cfg(feature = "metrics")]
mod metrics;
mod observe;
mod read;
mod save;
pub(crate) mod transaction;
mod update_in_store;
mod write;
