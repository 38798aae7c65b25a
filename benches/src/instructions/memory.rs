//! Operations on the map in memory. No flush runs during them.

use std::hint::black_box;

use gungraun::prelude::*;

use super::{
    limit::at_most,
    opened::{Opened, empty, saved},
};

#[library_benchmark(config = at_most(204_000))]
#[bench::hits(setup = saved)]
fn get(opened: Opened<u64>) -> Opened<u64> {
    for key in &opened.keys {
        black_box(opened.map.get(black_box(key)));
    }
    opened
}

#[library_benchmark(config = at_most(1_320_000))]
#[bench::new_keys(setup = empty)]
fn insert(opened: Opened<u64>) -> Opened<u64> {
    for key in &opened.keys {
        opened.map.insert(black_box(key), 1);
    }
    opened
}

#[library_benchmark(config = at_most(640_000))]
#[bench::saved_keys(setup = saved)]
fn overwrite(opened: Opened<u64>) -> Opened<u64> {
    for key in &opened.keys {
        opened.map.insert(black_box(key), 1);
    }
    opened
}

library_benchmark_group!(name = map, benchmarks = [get, insert, overwrite]);
