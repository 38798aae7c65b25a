//! Every test of the crate, a file per subject.

#[cfg(feature = "sqlite")]
mod sqlite;
