//! Flushes of a thousand structs.

use gungraun::prelude::*;
use persistify_benches::Customer;

use super::{
    limit::{at_most, at_most_in},
    opened::{Opened, unsaved, unsaved_in_file},
};

/// The commit of `JsonFile`, which runs on a thread for blocking calls.
const COMMIT: &str = "*::json_file::shared::Shared::commit*";

#[library_benchmark(config = at_most(6_560_000))]
#[bench::structs(setup = unsaved)]
fn encode(opened: Opened<Customer>) -> Opened<Customer> {
    opened.flush();
    opened
}

#[library_benchmark(config = at_most_in(COMMIT, 4_290_000))]
#[bench::structs(setup = unsaved_in_file)]
fn journal(opened: Opened<Customer>) -> Opened<Customer> {
    opened.flush();
    opened
}

library_benchmark_group!(name = flush, benchmarks = [encode, journal]);
