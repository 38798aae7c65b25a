//! The entries of a map in memory.

pub(crate) mod entry;
pub(crate) mod landing;
pub(crate) mod proposed;
pub(crate) mod save_state;
pub(crate) mod transitions;
