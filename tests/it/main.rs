//! Every test of the crate, a file per subject.

mod close;
mod closures;
mod errors;
mod faults;
mod flush;
mod house;
mod map;
mod names;
mod providers;
mod store;
mod testing;
