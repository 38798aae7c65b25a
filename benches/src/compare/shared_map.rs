//! Turns of reads and writes on a map that threads share.

use std::{hint::black_box, thread, time::Instant};

use persistify_benches::{Customer, Unit, timed};

use crate::{
    latencies::{LATENCIES, quantiles},
    work::{Role, Work, each},
};

/// A map that threads share.
pub trait SharedMap: Sync {
    /// Reads one field of a value.
    fn orders(&self, key: &str) -> Option<u64>;
    fn put(&self, key: &str, customer: Customer);
    /// Ends work in the background, so that it does not disturb the next contender.
    fn settle(&self) {}
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reads each key once.
    Read,
    /// Inserts each key into an empty map.
    Insert,
    /// Inserts each key into an empty map; the results are latencies.
    InsertLatencies,
    /// Replaces the value of each key so many times.
    Overwrite(usize),
}

/// A work on a map. Each thread has its own part of the keys.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub operation: Operation,
    pub keys: &'a [String],
    pub threads: usize,
}

impl<'a> Load<'a> {
    pub fn work(self, subject: &str) -> Work<'a> {
        let Self { keys, threads, .. } = self;
        let count = keys.len();
        let plural = if threads == 1 { "" } else { "s" };
        let name = |what: &str| format!("{subject}, {what}, {threads} thread{plural}");
        match self.operation {
            Operation::Read => {
                let what = format!("read a field of one of {count} structs");
                Work::timed(name(&what), "time per read and thread")
            }
            Operation::Insert => {
                let what = format!("insert {count} new keys");
                Work::timed(name(&what), "time per insert and thread")
            }
            Operation::InsertLatencies => {
                let what = format!("insert {count} new keys, each timed");
                Work::measured(name(&what), &LATENCIES, Unit::Nanoseconds)
            }
            Operation::Overwrite(_) => {
                let what = format!("overwrite {count} hot structs");
                Work::timed(name(&what), "time per insert and thread")
            }
        }
    }

    /// Adds a contender. Maps of reads and overwrites are filled once; inserts begin with
    /// an empty map each time.
    pub fn add<M: SharedMap + 'a>(
        self,
        work: &mut Work<'a>,
        role: Role,
        name: &'static str,
        make: impl Fn() -> M + 'a,
    ) {
        let filled = matches!(self.operation, Operation::Read | Operation::Overwrite(_));
        let kept = filled.then(|| {
            let map = make();
            put_all(&map, self.keys, self.customers());
            map.settle();
            map
        });
        work.add(role, name, "–", move || match &kept {
            Some(map) => self.turn(map),
            None => self.turn(&make()),
        });
    }

    fn customers(&self) -> Vec<Customer> {
        (0..self.keys.len()).map(|n| Customer::new(n, 0)).collect()
    }

    fn turn(self, map: &impl SharedMap) -> Vec<f64> {
        let result = match self.operation {
            Operation::Read => self.read(map),
            Operation::Insert => self.put(map, 1),
            Operation::Overwrite(times) => self.put(map, times),
            Operation::InsertLatencies => self.put_timed(map),
        };
        map.settle();
        result
    }

    fn parts(&self) -> impl Iterator<Item = &'a [String]> {
        self.keys.chunks(self.keys.len().div_ceil(self.threads))
    }

    fn read(self, map: &impl SharedMap) -> Vec<f64> {
        let time = timed(|| {
            thread::scope(|scope| {
                for part in self.parts() {
                    scope.spawn(move || {
                        let sum: u64 = part.iter().filter_map(|key| map.orders(key)).sum();
                        black_box(sum)
                    });
                }
            });
        });
        each(time, self.keys.len() / self.threads)
    }

    /// Times the puts; the values are already in memory.
    fn put(self, map: &impl SharedMap, times: usize) -> Vec<f64> {
        let values = |count| (0..count * times).map(|n| Customer::new(n, 0)).collect();
        let parts: Vec<(_, Vec<_>)> = self
            .parts()
            .map(|keys| (keys, values(keys.len())))
            .collect();
        let time = timed(|| {
            thread::scope(|scope| {
                for (keys, customers) in parts {
                    scope.spawn(move || put_all(map, keys, customers));
                }
            });
        });
        each(time, self.keys.len() * times / self.threads)
    }

    fn put_timed(self, map: &impl SharedMap) -> Vec<f64> {
        let values = |count| (0..count).map(|n| Customer::new(n, 0)).collect();
        let parts: Vec<(_, Vec<_>)> = self
            .parts()
            .map(|keys| (keys, values(keys.len())))
            .collect();
        let latencies: Vec<f64> = thread::scope(|scope| {
            let threads = parts.into_iter().map(|(keys, customers)| {
                scope.spawn(move || latencies_of_puts(map, keys, customers))
            });
            let threads: Vec<_> = threads.collect();
            let all = threads
                .into_iter()
                .flat_map(|one| one.join().expect("latencies"));
            all.collect()
        });
        quantiles(latencies)
    }
}

/// Puts each key as often as there are values.
fn put_all(map: &impl SharedMap, keys: &[String], customers: Vec<Customer>) {
    for (key, customer) in keys.iter().cycle().zip(customers) {
        map.put(key, customer);
    }
}

/// One clock reading per put, so the latency includes that of the reading.
fn latencies_of_puts(map: &impl SharedMap, keys: &[String], customers: Vec<Customer>) -> Vec<f64> {
    let mut latencies = Vec::with_capacity(keys.len());
    let mut last = Instant::now();
    for (key, customer) in keys.iter().zip(customers) {
        map.put(key, customer);
        let now = Instant::now();
        latencies.push((now - last).as_secs_f64() * 1e9);
        last = now;
    }
    latencies
}
