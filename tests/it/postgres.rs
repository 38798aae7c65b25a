//! Maps in PostgreSQL, on a real server.

pub(crate) mod server;
