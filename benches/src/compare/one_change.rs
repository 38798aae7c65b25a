//! One saved change in maps of different sizes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    time::Duration,
};

use persistify_benches::{Customer, keys};
use tempfile::TempDir;

use crate::{
    Bench,
    by_hand::ByHand,
    folder,
    ours::Ours,
    work::{Role, Row, Work, each, timed_apart},
};

const SAVES: usize = 20;
/// A rewrite of a larger map would take minutes.
const LARGEST_REWRITE: usize = 100_000;

pub fn run(bench: &Bench) -> Vec<Row> {
    let sizes = [1_000, 10_000, 100_000, 1_000_000];
    let sizes = &sizes[..bench.either(4, 3)];
    sizes
        .iter()
        .flat_map(|size| compare(bench, *size))
        .collect()
}

/// Each round saves the same keys again.
fn compare(bench: &Bench, size: usize) -> Vec<Row> {
    let keys = &keys(size);
    let customers: &Vec<_> = &(0..size).map(|n| Customer::new(n, 0)).collect();
    let (some, values) = (&keys[..SAVES], &customers[..SAVES]);
    let name = format!("one-change, save one entry of {size}");
    let mut work = Work::timed(name, "time per save");
    for ours in Ours::in_files(&bench.runtime) {
        ours.map.extend(keys.iter().zip(customers.iter().cloned()));
        ours.flush();
        work.add(Role::Ours, ours.name, "each save", move || {
            each(save(&ours, some, values), SAVES)
        });
    }
    for mut store in [ByHand::sqlite(), ByHand::append()] {
        store.write(keys, customers, size);
        work.add(store.role, store.name, store.fsync, move || {
            each(store.write(some, values, 1), SAVES)
        });
    }
    if size <= LARGEST_REWRITE {
        let mut file = Rewritten::new(keys, customers);
        work.add(
            Role::Peer,
            "HashMap, rewrite the file",
            "each save",
            move || each(timed_apart(|| file.save(&keys[0], &customers[0])), 1),
        );
    }
    work.run(bench.rounds(11, 3))
}

fn save(ours: &Ours<'_>, keys: &[String], customers: &[Customer]) -> Duration {
    timed_apart(|| {
        for (key, customer) in keys.iter().zip(customers) {
            let saved = ours.map.insert_and_save(key, customer.clone());
            ours.runtime.block_on(saved).expect("a saved entry");
        }
    })
}

/// A map that a program writes to its file as a whole: a new file, then a rename.
struct Rewritten {
    map: BTreeMap<String, Customer>,
    folder: TempDir,
}

impl Rewritten {
    fn new(keys: &[String], customers: &[Customer]) -> Self {
        Self {
            map: keys
                .iter()
                .cloned()
                .zip(customers.iter().cloned())
                .collect(),
            folder: folder(),
        }
    }

    fn save(&mut self, key: &str, customer: &Customer) {
        self.map.insert(key.to_owned(), customer.clone());
        let (new, file) = (
            self.folder.path().join("new"),
            self.folder.path().join("file"),
        );
        let mut writer = BufWriter::new(File::create(&new).expect("a file"));
        serde_json::to_writer(&mut writer, &self.map).expect("JSON");
        writer.flush().expect("a written file");
        writer.get_ref().sync_data().expect("a synced file");
        fs::rename(new, file).expect("a renamed file");
        let folder = File::open(self.folder.path()).expect("a folder");
        folder.sync_all().expect("a synced folder");
    }
}
