//! Stores maps in a PostgreSQL database.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use deadpool_postgres::Pool;

use self::{
    builder::PostgresBuilder, errors::Failure, last_commits::LastCommits, options::Options,
    sessions::Connections, statement::Statement,
};
use super::{Capabilities, Provider};
use crate::{
    batch::{Batch, Change, Committed, Op},
    error::Result,
    heartbeat::Heartbeat,
    incarnation::Incarnation,
    load::{Load, Wanted},
    name::MapName,
};

mod address;
mod adopted;
pub(crate) mod builder;
mod catalog;
mod changed;
mod changes;
mod commit;
mod conditions;
mod copy;
mod drops;
mod errors;
mod incarnations;
mod inspection;
mod keys;
mod last_commits;
mod load;
mod locks;
mod numbers;
pub(crate) mod options;
mod own;
mod page;
mod pipeline;
mod refusals;
mod rows;
mod schema;
mod sessions;
mod single_trip;
mod snapshot;
mod statement;
mod table;
mod times;
pub(crate) mod tls;
mod tombstones;
mod transaction;
mod trigger_checks;
pub(crate) mod values;
mod watermarks;
mod writers;

/// Stores maps in a PostgreSQL database, each in a table of its own.
///
/// A commit is one transaction, also across maps. When it returns, it is on the
/// server's disk: `synchronous_commit` is turned on for it where it is off. Other
/// connections and processes may use the database at the same time. Commits to one map
/// run one after the other, in the order of their revisions.
///
/// Requires PostgreSQL 12 or later and a database with the encoding UTF8. Clones share
/// the connections; dropping the last clone closes them.
///
/// # Tables
///
/// The map `stock` is stored in the table `map_stock`, which people and other programs
/// can read. Its columns are `key`, `value` (`jsonb` by default, see
/// [`value_type`](PostgresBuilder::value_type)), `updated_at`, `expires_at`, `revision`
/// (of the commit that last wrote the row), `schema` and `long_key`.
///
/// - A key of more than 2,000 bytes is stored in `long_key`; `key` then holds its
///   beginning and a digest. In both, U+0000 is written as U+0001 U+0001, and U+0001 as
///   U+0001 U+0002.
/// - In the name of a table, every byte of the map's name other than lower-case letters,
///   digits, `-` and `_` is written as `%` and two hex digits. A long name ends with a
///   digest; `persistify_maps` holds the full name.
/// - Tables whose names begin with `persistify_` hold everything else.
///
/// A program that changes a value in `map_stock` must also raise its `revision`.
/// [Adopt](PostgresBuilder::table) a table instead if other programs write to it.
///
/// # Poolers
///
/// PgBouncer works in transaction mode, because the provider leaves nothing behind in a
/// session: no prepared statement, setting or lock outlives its transaction.
///
/// # Cost
///
/// A commit takes one round trip, one flush to the server's disk, and O(changes). It
/// takes a second round trip if it is the first commit of an open map, repeats a failed
/// commit, or touches several maps, an adopted table or a table with triggers. Conditions
/// add two more.
///
/// A deletion also writes a tombstone. The first load of a map's
/// [changes](Wanted::Changed) creates an index of its revisions.
///
/// A load of all records streams them and blocks no commit. It first waits for the
/// commit that is in flight, but not for longer than the
/// [lock timeout](PostgresBuilder::lock_timeout), and only if this user may lock the
/// map's counter. A load of keys, of a page or of changes does not wait and is in
/// O(result).
///
/// # Outages
///
/// While the server is down, every call fails as `Unavailable`. Lost connections are
/// replaced automatically.
#[derive(Clone)]
pub struct Postgres {
    shared: Arc<Shared>,
    heartbeat: Heartbeat,
}

/// The state shared by all handles.
pub(super) struct Shared {
    connections: Connections,
    options: Options,
    last_commits: LastCommits,
    /// Whether this user has no permission to lock the counters.
    only_reads: AtomicBool,
    /// How many deletions were committed.
    deleted: AtomicUsize,
}

impl Postgres {
    /// Connects with the default options to a URL such as
    /// `postgres://user:password@host:5432/database`.
    ///
    /// Of several hosts, separated by commas, the first that accepts writes is used;
    /// `?target_session_attrs=any` uses any host.
    ///
    /// # Errors
    ///
    /// As for [`PostgresBuilder::connect`].
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// Creates a builder for the database at this URL.
    pub fn builder(url: impl AsRef<str>) -> PostgresBuilder {
        PostgresBuilder::new(url.as_ref())
    }

    /// Creates a builder for the database of an existing pool.
    ///
    /// The pool keeps its own options, and closing the provider does not close it. Set
    /// its `wait_timeout`: without one, a call may wait for a connection for ever, and a
    /// load holds a connection for as long as it streams.
    pub fn on_pool(pool: Pool) -> PostgresBuilder {
        PostgresBuilder::on_pool(pool)
    }

    /// [Closes](Provider::close) the connections, for all clones. Dropping the last clone
    /// does the same.
    ///
    /// # Errors
    ///
    /// Never fails.
    pub async fn close(&self) -> Result<()> {
        Provider::close(self).await
    }

    async fn start(connections: Connections, options: Options) -> Result<Self> {
        let prepared = schema::prepare(&connections, &options).await;
        prepared.map_err(|failure| failure.explained(&options.database))?;
        let shared = Arc::new(Shared {
            connections,
            options,
            last_commits: LastCommits::default(),
            only_reads: AtomicBool::new(false),
            deleted: AtomicUsize::new(0),
        });
        let heartbeat = Heartbeat::new();
        Ok(Self { shared, heartbeat })
    }
}

impl Postgres {
    fn explained<T>(&self, done: Result<T, Failure>) -> Result<T> {
        done.map_err(|failure| failure.explained(&self.shared.options.database))
    }
}

impl Shared {
    fn both(&self) -> (&Connections, &Options) {
        (&self.connections, &self.options)
    }

    /// The statements that prune tombstones as part of this commit, if pruning is due.
    fn prune_by_the_way(&self, batch: &Batch) -> Vec<Statement<'static>> {
        let is_delete = |change: &&Change| matches!(change.op, Op::Delete);
        let changes = batch.maps.iter().flat_map(|part| &part.changes);
        let deletes = changes.filter(is_delete).count();
        // Relaxed: nothing is ordered by this counter.
        let before = self.deleted.fetch_add(deletes, Ordering::Relaxed);
        if !tombstones::is_time_to_prune(before, deletes) {
            return Vec::new();
        }
        let maps = batch.maps.iter().map(|part| &part.map);
        let prune = maps.map(|map| Statement::new(tombstones::prune(&self.options, map)));
        prune.collect()
    }
}

#[async_trait]
impl Provider for Postgres {
    fn capabilities(&self) -> Capabilities {
        Capabilities::least()
            .with_several_maps()
            .with_conditions()
            .with_deletions()
            .with_durable()
            .with_bytes()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.shared.connections.check_open()?;
        load::load(&self.shared, map, wanted).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let (connections, options) = self.shared.both();
        let commit = || commit::commit(&self.shared, batch);
        self.explained(schema::on_tables(connections, options, commit).await)
    }

    /// Prunes tombstones, and forgets writers that have been idle for long.
    async fn release(&self, map: &MapName) -> Result<()> {
        let (connections, options) = self.shared.both();
        self.explained(schema::tidy(connections, options, map).await)
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        let (connections, options) = self.shared.both();
        self.explained(schema::maps(connections, options).await)
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        let (connections, options) = self.shared.both();
        let drop_map = || drops::drop_map(&self.shared, map);
        self.explained(schema::on_tables(connections, options, drop_map).await)
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        let (connections, options) = self.shared.both();
        let ping = || schema::ping(connections, options);
        self.explained(schema::on_tables(connections, options, ping).await)
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        Some(self.heartbeat.clone())
    }

    async fn close(&self) -> Result<()> {
        self.shared.connections.close();
        Ok(())
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("database", &self.shared.options.database)
            .field("schema", &self.shared.options.schema)
            .finish_non_exhaustive()
    }
}
