//! Every test of the crate, a file per subject.

#[cfg(feature = "json")]
mod json_file;
