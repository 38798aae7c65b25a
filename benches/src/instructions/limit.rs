//! The limits of the counts: about 15 % above the count when they were set.

use gungraun::{Callgrind, EntryPoint, EventKind, prelude::*};

/// Fails the benchmark if it takes more instructions than that.
pub fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    limited(instructions, EntryPoint::Default)
}

/// Fails the benchmark if calls of this function, on any thread, take more instructions
/// than that. Callgrind counts a benchmark on its own thread only.
pub fn at_most_in(function: &str, instructions: u64) -> LibraryBenchmarkConfig {
    limited(instructions, EntryPoint::Custom(function.into()))
}

fn limited(instructions: u64, counted: EntryPoint) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::with_args(["--cache-sim=no"]);
    callgrind
        .entry_point(counted)
        .hard_limits([(EventKind::Ir, instructions)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}
