//! Compares Persistify with its peers and prints a table of ratios.
//!
//! `cargo bench --bench speed -- get` runs only the subjects with `get` in
//! their name.

#[path = "speed/flushes.rs"]
mod flushes;
#[path = "speed/inserts.rs"]
mod inserts;
#[path = "speed/layers.rs"]
mod layers;
#[path = "speed/one_change.rs"]
mod one_change;
#[path = "speed/overwrites.rs"]
mod overwrites;
#[path = "speed/postgres.rs"]
mod postgres;
#[path = "speed/reads.rs"]
mod reads;
#[path = "speed/verified.rs"]
mod verified;

const SUBJECTS: [(&str, fn()); 8] = [
    ("get", reads::run),
    ("insert", inserts::run),
    ("overwrite", overwrites::run),
    ("flush", flushes::run),
    ("save", one_change::run),
    ("verify", verified::run),
    ("layers", layers::run),
    ("postgres", postgres::run),
];

fn main() {
    let wanted: Vec<_> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    persistify_benches::print_heading();
    for (name, run) in SUBJECTS {
        if wanted.is_empty() || wanted.iter().any(|word| name.contains(word)) {
            run();
        }
    }
}
