//! Postgres, on a server that the benchmark starts, compared with hand-written clients.

#[path = "postgres/batches.rs"]
mod batches;
#[path = "postgres/by_hand.rs"]
#[expect(dead_code, reason = "used by `compare`")]
mod by_hand;
#[path = "postgres/loads.rs"]
mod loads;
#[path = "postgres/saves.rs"]
mod saves;
#[path = "postgres/shortcuts.rs"]
mod shortcuts;

// The tests' code that starts a server, and ends it however the process ends.
#[path = "../../../tests/it/postgres/keeper.rs"]
#[expect(dead_code, reason = "used by the tests")]
mod keeper;
#[path = "../../../tests/it/postgres/server.rs"]
#[expect(dead_code, reason = "used by the tests")]
mod server;
#[path = "postgres/witness.rs"]
mod witness;

use std::cell::Cell;

use persistify::Postgres;
use persistify_benches::runtime;
use tokio::runtime::Runtime;

use self::{server::Server, witness::Witness};

pub fn run() {
    let bench = Bench::begin();
    batches::run(&bench);
    loads::run(&bench);
    saves::run(&bench);
    shortcuts::run(&bench);
}

/// The server that both sides write to, with its default durability settings.
struct Bench {
    runtime: Runtime,
    server: Server,
    names: Cell<u32>,
}

impl Bench {
    fn begin() -> Self {
        let settings = ["shared_buffers = 256MB", "max_wal_size = 4GB"];
        Self {
            runtime: runtime(),
            server: Server::with(&settings),
            names: Cell::new(0),
        }
    }

    /// Creates a database without tables.
    fn database(&self) -> String {
        self.names.set(self.names.get() + 1);
        let name = format!("bench_{}", self.names.get());
        Witness::connect(&self.server.url("postgres")).execute(&format!("CREATE DATABASE {name}"));
        self.server.url(&name)
    }

    fn connect(&self, url: &str) -> Postgres {
        let connected = self.runtime.block_on(Postgres::connect(url));
        connected.expect("a connected provider")
    }
}
