//! Every test of the crate, a file per subject.

mod errors;
mod house;
mod names;
mod providers;
mod testing;
