//! A concurrent map that you use like a `HashMap` and that keeps itself on
//! disk or in a database.
//!
//! Reads and writes touch memory only. One background task a map writes what
//! changed, in batches, to a [provider](Provider): JSON files, SQLite,
//! PostgreSQL, memory, or one of your own.
//!
//! # Usage
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> persistify::Result<()> {
//! use persistify::{Memory, PersistentMap};
//!
//! let stock: PersistentMap<u32> = PersistentMap::builder(Memory::new(), "stock").open().await?;
//! stock.insert("apple", 3);                 // in memory now, in the store within a second
//! stock.insert_and_save("pear", 5).await?;  // in the store when it returns
//! stock.update("apple", |n| *n += 1);
//! stock.flush().await?;                     // everything before this call is in the store
//! stock.close().await?;                     // saves the rest, or says what it could not save
//! # Ok(())
//! # }
//! ```
//!
//! - [`PersistentMap`] is the map, [`CachingMap`] one whose entries expire. Both
//!   are handles: clone them for every task. Code for both takes a [`Map`], whose
//!   methods they share; what can be chosen is listed at [`Builder`].
//! - Keys are strings. Values are what serde writes as JSON; to get copies of
//!   them they are `Clone`, else [`read`](Map::read) looks at them in place.
//! - A map is opened on a tokio runtime, and is loaded when `open` returns.
//!
//! # Consistency
//!
//! A write is seen by every reader when it returns. Each call on one key is
//! atomic; iteration is weakly consistent and holds no lock between two items.
//! The store follows memory: it never goes back to an older value of a key, and
//! a batch lands whole or not at all.
//!
//! The same map opened twice, in one process or in two, is two writers, and each
//! sees what the other wrote after a [`reload`](Map::reload). The last commit of a
//! key wins, unless the map [looks for conflicts](Builder::conflicts): then the
//! stored value wins, or the two are merged; see [`OnConflict`].
//!
//! # Several writers, several keys
//!
//! [`save_if`](Map::save_if) writes only if the store holds what is expected, as
//! [`get_with_revision`](Map::get_with_revision) saw it;
//! [`update_in_store`](Map::update_in_store) reads, changes and writes, until nobody
//! was faster. [`map.batch()`](Map::batch) commits several changes of a map as one,
//! and a [`Transaction`] those of several maps: all of it or none, in the store and
//! in memory.
//!
//! # Closures
//!
//! Closures run under a lock. Calling a map from inside one panics instead of
//! deadlocking. Nothing that a map returns holds a lock.
//!
//! # Durability
//!
//! What [`flush`](Map::flush), a [save](Map#saves) or [`close`](Map::close)
//! answered `Ok` for survives the end of the process, and a power loss where the
//! provider waits for the disk. Of other writes, those younger than the
//! [batch interval](Builder::batch) plus one commit are at risk;
//! [`Stats::oldest_pending`] tells how old the oldest is. Dropping the last
//! handle is not a close: it may save nothing, and a warning says how much.
//!
//! # Providers
//!
//! | provider | keeps a map | several processes | survives |
//! | --- | --- | --- | --- |
//! | [`Memory`] | in memory, shared by its clones | no | nothing |
//! | [`JsonFile`] | in a JSON file that people can read and edit | no: a lock file keeps them out | process, system, power |
//! | [`Sqlite`] | in a table of a SQLite file, its own or another program's | yes | process, system, power (with [`Synchronous::Full`], the default) |
//! | [`Postgres`] | in a table of a PostgreSQL database, its own or another program's | yes | process, system, power of the server |
//!
//! To write one, implement [`Provider`], whose documentation is the contract, and
//! put it through [`testing::conformance`](testing::conformance()).
//!
//! # Data that outlives its program
//!
//! - [`schema`](Builder::schema) and [`migrate`](Builder::migrate) upgrade what
//!   was stored in an older shape as it loads.
//! - [`copy()`] moves maps from one provider to another.
//! - [`export`](Map::export) and [`import`](Map::import) write and read a map as
//!   JSON Lines.
//! - [`Sqlite::backup`] copies a file while it is used.
//!
//! # Errors
//!
//! Sorted by remedy: see [`ErrorKind`]. A store that is down is tried again for 10
//! seconds (see [`RetryPolicy`]); after that, those who wait are told, and
//! everything stays pending until the store is back. The map finds that out by
//! itself, and at once if somebody waits or calls [`retry_now`](Map::retry_now). [`failures`](Map::failures) has every failed attempt,
//! [`health`](Map::health) whether the store is up, [`stats`](Map::stats) what is
//! pending, [`refused`](Map::refused) what the store will never take. Writes that
//! do not wait cannot fail; they panic on a closed map.
//!
//! # Logging
//!
//! The crate logs through [`tracing`](https://docs.rs/tracing), under targets that
//! stay as they are: `persistify` in a filter selects all of them.
//!
//! | target | events | spans (level) and their fields |
//! | --- | --- | --- |
//! | `persistify::map` | a map was dropped before `close`; a listener or a `Drop` of the program panicked | `open`, `close` (`INFO`): `map`, `provider` |
//! | `persistify::load` | a stored record is unreadable | `load` (`DEBUG`): `map`, `provider` |
//! | `persistify::flush` | a save failed: `map`, `operation`, `attempt`, `is_final`, `error` | `commit` (`DEBUG`): `map`, `provider`, `changes`, `bytes`, `attempt` |
//! | `persistify::provider` | a torn journal, a file that another program changed | |
//! | `persistify::copy` | a map that was not released after a failed copy | |
//!
//! No key and no value is logged above `TRACE`.
//!
//! # Features
//!
#![cfg_attr(feature = "docs", doc = document_features::document_features!())]
#![cfg_attr(
    not(feature = "docs"),
    doc = "`json` and `sqlite` (default), `postgres`, `testing`: see the README."
)]
//!
//! # It is not
//!
//! - a database: there are no queries or ranges, and transactions do not read;
//! - for more data than fits into memory;
//! - for keys that several processes write all the time: they meet at each commit;
//! - a cache bounded by size: entries leave by time only.

#![cfg_attr(docsrs, feature(doc_cfg))]

// In reading order: what is stored, what comes up, what goes down, where it is kept.
mod error;
mod incarnation;
mod record;

#[cfg(any(feature = "json", feature = "sqlite", feature = "postgres"))]
mod file;

mod batch;
mod load;
mod name;
mod trace;
mod writer_id;

mod clock;
mod heartbeat;
mod provider;

mod layer;

#[cfg(feature = "testing")]
pub mod testing;

mod copy;

mod codec;
mod event;
mod map;

mod cache;

pub mod blocking;

/// The attribute that an implementation of [`Provider`] carries.
pub use async_trait::async_trait;
pub use batch::{
    Acknowledged, Batch, BatchId, Change, Committed, Expect, MapBatch, Op, Otherwise, Skipped,
    Turn, WriterId,
};
pub use cache::{CachingMap, CachingMapBuilder, Expiring};
pub use clock::{Clock, SystemClock};
pub use copy::{Copied, copy};
pub use error::{Error, ErrorKind, Result};
pub use event::{
    Conflict, Health, KeySample, Operation, RefusedChange, Resolution, SaveFailure, Stats,
    UnreadableRecord,
};
pub use heartbeat::Heartbeat;
pub use incarnation::{Incarnation, Rewound};
pub use layer::Layer;
pub use load::{Load, PAGE_RECORDS, Wanted};
pub use map::{
    Map,
    api::{
        atomic_batch::AtomicBatch,
        builder::{Builder, rewind::Rewind, verify::Verify},
        close_on_drop::CloseOnDrop,
        entry::{Entry, occupied::Occupied},
        iterate::Iter,
        transaction::Transaction,
    },
    lifetime::{Forever, Lifetime},
    load::migrations::Migrated,
    persistent::{PersistentMap, PersistentMapBuilder},
    write_behind::{committer::retry::RetryPolicy, conflicts::OnConflict},
};
pub use name::MapName;
#[cfg(all(feature = "json", feature = "testing"))]
pub use provider::json_file::disk::{Disk, DiskFile, FolderLock, NewFile, RealDisk};
#[cfg(feature = "json")]
pub use provider::json_file::{JsonFile, JsonFileBuilder};
#[cfg(feature = "postgres")]
pub use provider::postgres::{Postgres, builder::PostgresBuilder, tls::Tls, values::ValueType};
#[cfg(feature = "sqlite")]
pub use provider::sqlite::{
    Sqlite,
    builder::{SqliteBuilder, Synchronous},
};
pub use provider::{Capabilities, Provider, ledger, memory::Memory};
pub use record::{Cause, Deletion, Encoding, Payload, Record, Revision, Timestamp};
/// The JSON library whose values [migrations](Builder::migrate) work on.
pub use serde_json;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
