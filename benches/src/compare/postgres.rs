//! Postgres, on a server that the benchmark starts, compared with hand-written clients.

#[path = "../speed/postgres/by_hand.rs"]
mod by_hand;
// The tests' code that starts a server, and ends it however the process ends.
#[path = "../../../tests/it/postgres/keeper.rs"]
#[expect(dead_code, reason = "used by the tests")]
mod keeper;
#[path = "../../../tests/it/postgres/server.rs"]
#[expect(dead_code, reason = "used by the tests")]
mod server;
#[path = "slow_link.rs"]
mod slow_link;
#[path = "../speed/postgres/witness.rs"]
mod witness;

use std::{cell::Cell, net::SocketAddr, time::Duration};

use persistify::{PersistentMap, Postgres};
use persistify_benches::{Customer, keys, timed};

use self::{
    by_hand::{ByHand, Way},
    server::Server,
    slow_link::SlowLink,
    witness::Witness,
};
use crate::{
    Bench, ours,
    work::{Role, Row, Work, each, total},
};

const BATCH: usize = 1_000;
/// Row by row over a slow link, a whole batch would take many seconds.
const BATCH_BY_ROW: usize = 100;
const FSYNC: &str = "each commit";

pub fn run(bench: &Bench) -> Vec<Row> {
    let server = Server::with(&["shared_buffers = 256MB", "max_wal_size = 4GB"]);
    let databases = Databases::new(bench, &server, server.address());
    let mut rows = write_batches(&databases, "", BATCH);
    for milliseconds in [1, 5] {
        let added = Duration::from_millis(milliseconds);
        let link = SlowLink::to(server.address(), added);
        let databases = Databases::new(bench, &server, link.address());
        let far = format!(" over {milliseconds} ms of round trip");
        rows.extend(write_batches(&databases, &far, BATCH_BY_ROW));
    }
    rows.extend(open(&databases));
    rows
}

/// The server that all contenders share, with its default durability settings, and the
/// address by which they reach it.
struct Databases<'b> {
    bench: &'b Bench,
    server: &'b Server,
    address: SocketAddr,
    count: Cell<u32>,
}

impl<'b> Databases<'b> {
    fn new(bench: &'b Bench, server: &'b Server, address: SocketAddr) -> Self {
        Self {
            bench,
            server,
            address,
            count: Cell::new(0),
        }
    }

    /// Creates a database without tables.
    fn create(&self) -> String {
        self.count.set(self.count.get() + 1);
        let name = format!("compare_{}_{}", self.address.port(), self.count.get());
        Witness::connect(&self.server.url("postgres")).execute(&format!("CREATE DATABASE {name}"));
        format!("postgres://postgres@{}/{name}", self.address)
    }

    fn provider(&self) -> Postgres {
        let url = self.create();
        let connected = self.bench.runtime.block_on(Postgres::connect(&url));
        connected.expect("a connected provider")
    }

    fn by_hand(&self) -> ByHand {
        ByHand::connect(&self.bench.runtime, &self.create())
    }
}

/// Each round overwrites the rows of the previous round. Peers that write row by row write
/// `by_row` rows.
fn write_batches(databases: &Databases<'_>, far: &str, by_row: usize) -> Vec<Row> {
    let runtime = &databases.bench.runtime;
    let keys = &keys(BATCH);
    let customers: &Vec<_> = &(0..BATCH).map(|n| Customer::new(n, 0)).collect();
    let name = format!("postgres, write a batch of {BATCH} rows{far}");
    let mut work = Work::timed(name, "time per row");
    let map = ours::open(runtime, databases.provider());
    work.add(Role::Ours, "Persistify Postgres", FSYNC, move || {
        let values = customers.clone();
        let time = timed(|| {
            map.extend(keys.iter().zip(values));
            runtime.block_on(map.flush()).expect("all saved");
        });
        each(time, BATCH)
    });
    let ways = [
        ("a transaction per row", Way::RowByTransaction, by_row),
        ("an upsert per row", Way::RowByRow, by_row),
        ("UNNEST", Way::Unnest, BATCH),
        ("UNNEST without BEGIN", Way::UnnestAlone, BATCH),
        ("COPY and merge", Way::CopyAndMerge, BATCH),
    ];
    for (name, way, rows) in ways {
        let mut peer = databases.by_hand();
        let (keys, customers) = (&keys[..rows], &customers[..rows]);
        work.add(Role::Peer, format!("by hand, {name}"), FSYNC, move || {
            each(peer.write(runtime, way, keys, customers), rows)
        });
    }
    work.run(databases.bench.rounds(15, 3))
}

fn open(databases: &Databases<'_>) -> Vec<Row> {
    let runtime = &databases.bench.runtime;
    let count = databases.bench.either(200_000, 50_000);
    let keys = keys(count);
    let customers: Vec<_> = (0..count).map(|n| Customer::new(n, 0)).collect();
    let provider = databases.provider();
    let map = ours::open(runtime, provider.clone());
    map.extend(keys.iter().zip(customers.iter().cloned()));
    runtime.block_on(map.close()).expect("all saved");
    let mut peer = databases.by_hand();
    peer.write(runtime, Way::Unnest, &keys, &customers);
    let mut work = Work::timed(format!("postgres, open {count} rows"), "time until loaded");
    work.add(Role::Ours, "Persistify Postgres", "–", move || {
        total(opened(databases, &provider, count))
    });
    work.add(
        Role::Peer,
        "by hand, COPY into a HashMap",
        "–",
        move || {
            let (time, loaded) = peer.load(runtime);
            assert_eq!(loaded.len(), count);
            total(time)
        },
    );
    work.run(databases.bench.rounds(11, 3))
}

/// Times the opening only, not the drop of the map.
fn opened(databases: &Databases<'_>, provider: &Postgres, count: usize) -> Duration {
    let mut map: Option<PersistentMap<Customer>> = None;
    let time = timed(|| map = Some(ours::open(&databases.bench.runtime, provider.clone())));
    assert_eq!(map.map(|map| map.len()), Some(count));
    time
}
