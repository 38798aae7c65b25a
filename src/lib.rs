//! A concurrent map that you use like a `HashMap` and that persists itself.
//!
//! Reads and writes touch memory only. One background task per map writes
//! changed entries in batches (write-behind) to a [provider](Provider): JSON
//! files, SQLite, PostgreSQL, memory, or one of your own.
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
//! stock.flush().await?;                     // all writes made before this call are in the store
//! stock.close().await?;                     // saves the rest, or names the keys it could not save
//! # Ok(())
//! # }
//! ```
//!
//! - [`PersistentMap`] is the map; [`CachingMap`] is a map whose entries expire.
//!   Both are cheap handles: clone one for each task. They share the methods of
//!   [`Map`], and generic code takes a `&Map<V, L>`. [`Builder`] lists the options.
//! - Keys are strings. Values are types that serde can write as JSON. Methods
//!   that return a value need `V: Clone`; [`read`](Map::read) borrows it instead.
//! - A map is opened on a tokio runtime. It is fully loaded when `open` returns.
//!   [`blocking`] has maps for programs without async.
//!
//! # Consistency
//!
//! A write is visible to every reader once it returns. Each call on one key is
//! atomic. Iteration is weakly consistent and holds no lock between two items.
//! The store follows memory: it never returns to an older value of a key, and
//! each batch is applied as a whole or not at all.
//!
//! A map that is opened twice, in one process or in two, has two writers. Each
//! sees the writes of the other after a conflict or a [`reload`](Map::reload).
//! By default the last commit of a key wins. With [`conflicts`](Builder::conflicts)
//! the map checks each stored entry first, and then keeps the stored value or
//! merges the two; see [`OnConflict`].
//!
//! # Several writers, several keys
//!
//! - [`save_if`](Map::save_if) writes only if the stored entry is as expected, for
//!   example unchanged since [`get_with_revision`](Map::get_with_revision).
//! - [`update_in_store`](Map::update_in_store) is a read-modify-write that retries
//!   when another process wrote first.
//! - [`map.batch()`](Map::batch) commits several changes of one map atomically, a
//!   [`Transaction`] those of several maps: all of them or none, in the store and
//!   in memory.
//!
//! # Closures
//!
//! Closures that you pass to a map run under the lock of a shard. A call of any
//! map from inside one panics instead of deadlocking. No value that a map returns
//! holds a lock.
//!
//! # Durability
//!
//! A change is durable once [`flush`](Map::flush), a [save](Map#saves) or
//! [`close`](Map::close) has returned `Ok`: it survives the end of the process,
//! and a power loss if the provider syncs to disk. Other writes are at risk for
//! the [batch interval](Builder::batch) plus one commit;
//! [`Stats::oldest_pending`] is the age of the oldest. Dropping the last handle
//! does not close a map: pending changes may be lost, and a warning in the log
//! says how many.
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
//! [`connect()`] opens a provider by a URL, such as `sqlite:app.db`, and [`ProviderConfig`] by
//! a table of a configuration file; both add layers by their names.
//!
//! To write your own, implement [`Provider`], whose documentation is the contract,
//! and test it with [`testing::conformance`](testing::conformance()).
//!
//! # Layers
//!
//! A layer is a provider that wraps a provider. [`ProviderExt`] lists the layers of this crate
//! and their order: a circuit breaker, a standby, a local journal, shards, encryption,
//! compression, metrics and tenants.
//!
//! # Migrations, copies, backups
//!
//! - [`schema`](Builder::schema) and [`migrate`](Builder::migrate) upgrade older
//!   records as they load.
//! - [`copy()`] copies maps from one provider to another.
//! - [`export`](Map::export) and [`import`](Map::import) write and read a map as
//!   JSON Lines.
//! - [`Sqlite::backup`] copies a SQLite file while it is in use.
//!
//! # Errors
//!
//! [`ErrorKind`] sorts errors by remedy. If the store is down, the map retries for
//! 10 seconds (see [`RetryPolicy`]). Then waiting callers get the error, and
//! changes stay pending until the store is back. The map probes the store every 30
//! seconds; a call that waits for a save, or [`retry_now`](Map::retry_now), starts
//! an attempt at once.
//!
//! [`failures`](Map::failures) reports every failed attempt,
//! [`health`](Map::health) whether the store is up, [`stats`](Map::stats) the
//! number of pending changes, and [`refused`](Map::refused) the changes that the
//! store rejected for good. Writes that do not wait cannot fail; on a closed map
//! they panic.
//!
//! # Logging
//!
//! The crate logs through [`tracing`](https://docs.rs/tracing), under fixed targets.
//! The filter `persistify` selects all of them.
//!
//! | target | events | spans (level) and their fields |
//! | --- | --- | --- |
//! | `persistify::map` | a map was dropped before `close`; a listener or a `Drop` of the program panicked | `open`, `close` (`INFO`): `map`, `provider` |
//! | `persistify::load` | a stored record is unreadable or damaged; a map was loaded from a standby, or has the entries of its store again: `map`, `copied_at`, `error` | `load` (`DEBUG`): `map`, `provider` |
//! | `persistify::flush` | a save failed: `map`, `operation`, `attempt`, `is_final`, `error` | `commit` (`DEBUG`): `map`, `provider`, `changes`, `bytes`, `attempt` |
//! | `persistify::provider` | a torn journal, a file that another program changed, a [`Journaled`] store that waits or was refused a change, a circuit breaker that opens or closes: `provider`, `error`; a slow call: `provider`, `call`, `map`, `took`, `outcome` | |
//! | `persistify::copy` | a map that was not released after a failed copy; the standby of a [`Failover`] that falls behind: `map`, `error` | |
//!
//! No key and no value is logged above `TRACE`.
//!
//! # Metrics
//!
//! With the feature `metrics`, the crate records metrics through the
//! [`metrics`](https://docs.rs/metrics) facade. Install the recorder before you create the
//! layers. The names tell the units: seconds and bytes.
//!
//! | metric | kind | labels | recorded by |
//! | --- | --- | --- | --- |
//! | `persistify_commit_seconds`, `persistify_load_seconds` | histogram | `provider`, `map`, `outcome`: `ok`, `error`, `cancelled` | [`Metered`] |
//! | `persistify_ping_seconds` | histogram | `provider`, `outcome` | [`Metered`] |
//! | `persistify_commit_changes`, `persistify_commit_bytes` | histogram | `provider`, `map` | [`Metered`] |
//! | `persistify_load_records`, `persistify_load_bytes` | histogram | `provider`, `map` | [`Metered`] |
//! | `persistify_errors_total` | counter | `provider`, `map`, `kind` | [`Metered`] |
//! | `persistify_calls_in_flight` | gauge | `provider`, `map` | [`Metered`] |
//! | `persistify_breaker_state` | gauge: 0 closed, 1 half-open, 2 open | `provider` | [`CircuitBreaker`] |
//! | `persistify_breaker_openings_total` | counter | `provider` | [`CircuitBreaker`] |
//! | `persistify_entries`, `persistify_pending_keys`, `persistify_refused_keys`, `persistify_unreadable_records` | gauge | `provider`, `map` | [`record_metrics`](Map::record_metrics) |
//! | `persistify_oldest_pending_seconds`; `persistify_healthy`: 1 or 0 | gauge | `provider`, `map` | [`record_metrics`](Map::record_metrics) |
//! | `persistify_commits_total`, `persistify_changes_total`, `persistify_failed_attempts_total`, `persistify_conflicts_total` | counter | `provider`, `map` | [`record_metrics`](Map::record_metrics) |
//!
//! # Features
//!
#![cfg_attr(feature = "docs", doc = document_features::document_features!())]
#![cfg_attr(
    not(feature = "docs"),
    doc = "`json` and `sqlite` (default), `postgres`, `testing`: see the README."
)]
//!
//! # Limits
//!
//! - Keys are strings, and values are stored as JSON.
//! - It is not a database: there are no queries and no ranges, and transactions do
//!   not read.
//! - The whole map is in memory.
//! - Several processes that write the same keys all the time conflict at each
//!   commit.
//! - A [`CachingMap`] is not bounded by size: entries expire, they are not evicted.

#![cfg_attr(docsrs, feature(doc_cfg))]

// Ordered from the vocabulary of the contract up to the maps.
mod error;
mod incarnation;
mod record;

#[cfg(any(feature = "journal", feature = "sqlite", feature = "postgres"))]
mod file;

mod batch;
mod load;
mod name;
mod trace;
mod writer_id;

#[cfg(feature = "journal")]
#[cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "public for tests only")
)]
mod disk;
#[cfg(feature = "journal")]
mod journal;

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

mod connect;

/// The attribute for implementations of [`Provider`] and [`Layer`].
pub use async_trait::async_trait;
pub use batch::{
    Acknowledged, Batch, BatchId, Change, Committed, Expect, MapBatch, Op, Otherwise, Skipped,
    Turn, WriterId,
};
pub use cache::{CachingMap, CachingMapBuilder, Expiring};
pub use clock::{Clock, SystemClock};
pub use connect::{ProviderConfig, connect};
pub use copy::{Copied, copy};
#[cfg(all(feature = "journal", feature = "testing"))]
pub use disk::{Disk, DiskFile, FolderLock, NewFile, RealDisk};
pub use error::{Error, ErrorKind, Result};
pub use event::{
    Conflict, Health, KeySample, Operation, RefusedChange, Resolution, SaveFailure, Stats,
    UnreadableRecord,
};
pub use heartbeat::Heartbeat;
pub use incarnation::{Incarnation, Rewound};
#[cfg(any(feature = "lz4", feature = "zstd"))]
pub use layer::compressed::Compressed;
#[cfg(feature = "encryption")]
pub use layer::encrypted::{Encrypted, keys::Keys, rewrite::Rewritten};
#[cfg(feature = "journal")]
pub use layer::journaled::{Acknowledge, JournalStats, Journaled};
#[cfg(feature = "metrics")]
pub use layer::metered::Metered;
pub use layer::{
    Layer,
    chain::{IntoLayer, ProviderExt},
    circuit_breaker::{CircuitBreaker, CircuitState},
    failover::{Failover, mirror::Lag},
    namespaced::Namespaced,
    sharded::Sharded,
};
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
/// The JSON crate whose `Value` [migrations](Builder::migrate) take and return.
pub use serde_json;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
