//! Ours beside its peers: prints a table of ratios.
//!
//! `cargo bench --bench speed -- get` runs only the subjects with `get` in
//! their name.

#[path = "speed/flushes.rs"]
mod flushes;
#[path = "speed/inserts.rs"]
mod inserts;
#[path = "speed/one_change.rs"]
mod one_change;
#[path = "speed/overwrites.rs"]
mod overwrites;
#[path = "speed/reads.rs"]
mod reads;

const SUBJECTS: [(&str, fn()); 5] = [
    ("get", reads::run),
    ("insert", inserts::run),
    ("overwrite", overwrites::run),
    ("flush", flushes::run),
    ("save", one_change::run),
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
