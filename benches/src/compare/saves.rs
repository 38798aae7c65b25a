//! Saves that are awaited one by one, by one task and by many.

use std::{iter, sync::mpsc, thread, time::Duration};

use persistify::PersistentMap;
use persistify_benches::{Customer, keys, timed};
use tokio::{runtime::Runtime, sync::oneshot};

use crate::{
    Bench,
    by_hand::ByHand,
    ours::Ours,
    work::{Role, Row, Work, each},
};

const TASKS: usize = 64;

pub fn run(bench: &Bench) -> Vec<Row> {
    let mut rows = by_one_task(bench, bench.either(500, 200));
    rows.extend(by_many_tasks(bench, bench.either(TASKS * 40, TASKS * 10)));
    rows
}

/// Each round saves the same keys again.
fn by_one_task(bench: &Bench, saves: usize) -> Vec<Row> {
    let entries = &entries(saves);
    let name = format!("saves, one task saves {saves} entries one after the other");
    let mut work = Work::timed(name, "time per save");
    add_ours(&mut work, bench, entries, 1);
    for store in ByHand::all_engines() {
        add_by_hand(&mut work, store, entries, 1);
    }
    add_by_hand(&mut work, ByHand::append(), entries, 1);
    work.run(bench.rounds(15, 3))
}

fn by_many_tasks(bench: &Bench, saves: usize) -> Vec<Row> {
    let entries = &entries(saves);
    let name = format!("saves, {TASKS} tasks save {saves} entries; each waits for its own save");
    let mut work = Work::timed(name, "time per save");
    add_ours(&mut work, bench, entries, TASKS);
    for mut store in [ByHand::sqlite(), ByHand::append()] {
        store.name = match store.name {
            "rusqlite by hand" => "rusqlite, group commit by hand",
            _ => "append, group commit by hand",
        };
        add_grouped(&mut work, &bench.runtime, store, entries);
    }
    for store in ByHand::all_engines() {
        add_by_hand(&mut work, store, entries, 1);
    }
    let mut one_by_one = ByHand::append();
    one_by_one.role = Role::Peer;
    add_by_hand(&mut work, one_by_one, entries, 1);
    add_by_hand(&mut work, ByHand::append(), entries, TASKS);
    work.run(bench.rounds(15, 3))
}

type Entries = (Vec<String>, Vec<Customer>);

fn entries(count: usize) -> Entries {
    let customers = (0..count).map(|n| Customer::new(n, 0)).collect();
    (keys(count), customers)
}

fn add_ours<'a>(work: &mut Work<'a>, bench: &'a Bench, entries: &'a Entries, tasks: usize) {
    for ours in Ours::in_files(&bench.runtime) {
        work.add(Role::Ours, ours.name, "each commit", move || {
            // Borrowed as a whole: a capture of the map alone would drop the folder.
            let ours = &ours;
            let save = |entries| save_all(ours.map.clone(), entries);
            each(
                run_tasks(&bench.runtime, entries, tasks, save),
                entries.0.len(),
            )
        });
    }
}

async fn save_all(map: PersistentMap<Customer>, (keys, customers): Entries) {
    for (key, customer) in keys.iter().zip(customers) {
        map.insert_and_save(key, customer).await.expect("saved");
    }
}

/// Adds one thread that writes the entries, with so many per commit.
fn add_by_hand<'a>(
    work: &mut Work<'a>,
    mut store: ByHand,
    (keys, customers): &'a Entries,
    batch: usize,
) {
    let name = format!("{}, {batch} a commit", store.name);
    work.add(store.role, name, store.fsync, move || {
        each(store.write(keys, customers, batch), keys.len())
    });
}

/// A save that a task waits for.
struct Save {
    key: String,
    customer: Customer,
    saved: oneshot::Sender<()>,
}

/// Adds tasks that send their saves to a thread, which commits all that wait together.
fn add_grouped<'a>(work: &mut Work<'a>, runtime: &'a Runtime, store: ByHand, entries: &'a Entries) {
    let (name, fsync) = (store.name, store.fsync);
    let (sender, saves) = mpsc::channel();
    // The thread ends when the work drops the sender.
    thread::spawn(move || commit_groups(store, &saves));
    work.add(Role::Peer, name, fsync, move || {
        let save = |entries| send_all(sender.clone(), entries);
        each(run_tasks(runtime, entries, TASKS, save), entries.0.len())
    });
}

async fn send_all(thread: mpsc::Sender<Save>, (keys, customers): Entries) {
    for (key, customer) in keys.into_iter().zip(customers) {
        let (saved, answer) = oneshot::channel();
        let save = Save {
            key,
            customer,
            saved,
        };
        thread.send(save).expect("a thread that commits");
        answer.await.expect("saved");
    }
}

fn commit_groups(mut store: ByHand, saves: &mpsc::Receiver<Save>) {
    while let Ok(first) = saves.recv() {
        let (mut keys, mut customers, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for save in iter::once(first).chain(saves.try_iter()) {
            keys.push(save.key);
            customers.push(save.customer);
            waiting.push(save.saved);
        }
        store.write(&keys, &customers, keys.len());
        for saved in waiting {
            saved.send(()).expect("a task that waits");
        }
    }
}

/// Times the tasks, each of which saves its share of the entries.
fn run_tasks<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    (keys, customers): &Entries,
    tasks: usize,
    save: impl Fn(Entries) -> F,
) -> Duration {
    let share = keys.len() / tasks;
    let shares = keys.chunks(share).zip(customers.chunks(share));
    let shares: Vec<Entries> = shares
        .map(|(keys, customers)| (keys.to_vec(), customers.to_vec()))
        .collect();
    timed(|| {
        let tasks: Vec<_> = shares
            .into_iter()
            .map(|share| runtime.spawn(save(share)))
            .collect();
        for task in tasks {
            runtime.block_on(task).expect("all saved");
        }
    })
}
