//! Counts the CPU instructions of a thousand operations, and fails if there are more
//! than the limit.
//!
//! Run it with `.ci/instructions`.

#![expect(
    clippy::unnecessary_wraps,
    reason = "the code that `library_benchmark` generates"
)]

#[path = "instructions/flushes.rs"]
mod flushes;
#[path = "instructions/limit.rs"]
mod limit;
#[path = "instructions/memory.rs"]
mod memory;
#[path = "instructions/opened.rs"]
mod opened;

use flushes::flush;
use gungraun::main;
use memory::map;

main!(library_benchmark_groups = [map, flush]);
