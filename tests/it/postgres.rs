//! Maps in Postgres, on real servers.

mod database;
mod keeper;
mod kit;
mod proxy;
mod server;
mod wire;
mod witness;
