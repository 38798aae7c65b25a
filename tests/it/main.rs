//! Every test of the crate, a file per subject.

mod map;
#[cfg(feature = "sqlite")]
mod sqlite;
