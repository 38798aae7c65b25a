//! Maps in Postgres, on real servers.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use persistify::{
    Batch, Change, Committed, Error, ErrorKind, Expect, MapBatch, MapName, Otherwise, Payload,
    PersistentMap, Postgres, Provider, Record, Result, Revision, Tls, ValueType, Wanted,
};

use crate::support::{
    Pen, name, put,
    records::{all, error, load, one, pairs, text, text_of},
};

mod adopted;
mod bytes;
mod cancels;
mod commits;
mod conditions;
mod conforms;
mod connecting;
mod cuts;
mod database;
mod drops;
mod followed;
mod keeper;
mod kit;
mod loads;
mod meddling;
mod outages;
mod pgbouncer;
mod proxy;
mod quiet;
mod refused;
mod rewound;
mod sample;
mod server;
mod sessions;
mod shapes;
mod texts;
mod tls;
mod together;
mod trouble;
mod wire;
mod witness;
mod writers;

pub(crate) use database::Database;
pub(crate) use server::{Server, Stop};
use witness::Witness;

impl Database {
    async fn connect(&self) -> Postgres {
        Postgres::connect(self.url()).await.unwrap()
    }
}

/// A fresh database and a witness connected to it. Dropping the witness drops the
/// database.
fn database() -> (String, Witness) {
    let database = Database::fresh();
    let url = database.url().to_owned();
    (url, Witness::of(database))
}

/// The table of a map with a plain name.
fn table_of(map: &str) -> String {
    format!("map_{map}")
}

/// Polls until the condition holds; panics after 30 seconds.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
