//! The in-memory table: a `DashMap` of values, each with its save state.

mod access;
pub(crate) mod discarded;
pub(crate) mod entry;
pub(crate) mod landing;
pub(crate) mod locked_entry;
pub(crate) mod observer;
mod proposed;
pub(crate) mod reentrancy;
pub(crate) mod save_state;
pub(crate) mod shards;
mod transitions;
