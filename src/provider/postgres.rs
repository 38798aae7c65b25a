//! Keeps maps in a PostgreSQL database.

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
mod options;
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

/// Keeps maps in a PostgreSQL database: a table a map.
///
/// A commit is one transaction, also over several maps, and is on the server's
/// disk when it returns (`synchronous_commit` is switched on for it where it is
/// off). Other connections and processes may use the database at the same
/// time; commits to the same map wait for each other, in the order in which
/// their revisions are given out.
///
/// The map `stock` is in the table `map_stock`, for people and other programs
/// to read: `key`, `value` (`jsonb`, unless [otherwise](PostgresBuilder::value_type)
/// chosen), `updated_at`, `expires_at`, `revision` (of the commit that last
/// wrote the row) and `schema`. Keys of more than 2,000 bytes have a stand-in in
/// `key` and are whole in `long_key`; U+0000 and U+0001 are written there as
/// U+0001 with U+0001 or U+0002. Bytes of a name other than lower-case letters,
/// digits, `-` and `_` are `%` and two hex digits in the table's; a long one
/// ends with a digest, and `persistify_maps` has it whole. Tables that begin
/// with `persistify_` keep the rest. A program that changes values in `map_stock`
/// by other means should raise their `revision`, too; a table that other programs
/// write to is better [adopted](PostgresBuilder::table).
///
/// It needs PostgreSQL 12 or later, and a database with the encoding UTF8.
///
/// Cloned handles share the connections. Dropping the last one closes them.
///
/// # Poolers
///
/// Nothing is left behind in a session, so PgBouncer works in transaction mode:
/// no prepared statements that outlive a transaction, no settings but those of
/// a transaction, no session locks.
///
/// # What it costs
///
/// A commit costs one round trip and one wait for the server's disk, plus
/// O(changes). It costs one round trip more if it is the first of an open map, or
/// repeats one that failed, or touches several maps, an adopted one, or one with
/// triggers; and two more if it has conditions.
///
/// A deletion also writes a tombstone. A map whose [changes](Wanted::Changed) were ever
/// loaded has an index of its revisions, which the first such load makes.
///
/// A load of all records waits for the commit that is under way, if there is one
/// and this user may lock the map's counter, but not for longer than the
/// [lock timeout](PostgresBuilder::lock_timeout). It streams the records, and
/// blocks no commit. A load of keys, of a page or of changes does not wait,
/// and is in O(result).
///
/// # When the server goes
///
/// Every call is answered `Unavailable` until it is back; lost connections are
/// replaced automatically.
#[derive(Clone)]
pub struct Postgres {
    shared: Arc<Shared>,
    heartbeat: Heartbeat,
}

/// What the handles share.
pub(super) struct Shared {
    connections: Connections,
    options: Options,
    last_commits: LastCommits,
    /// Whether this user turned out to have no right to lock the counters.
    only_reads: AtomicBool,
    /// How many deletions were committed.
    deleted: AtomicUsize,
}

impl Postgres {
    /// Connects to that database with the default options:
    /// `postgres://user:password@host:5432/database`.
    ///
    /// Several hosts, separated by commas, are tried in turn, for one that takes
    /// writes; `?target_session_attrs=any` takes any.
    ///
    /// # Errors
    ///
    /// As for [`PostgresBuilder::connect`].
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// Options for that database.
    pub fn builder(url: impl AsRef<str>) -> PostgresBuilder {
        PostgresBuilder::new(url.as_ref())
    }

    /// Options for the database of a pool that the program has already.
    ///
    /// Its connections, their number and timeouts are its own; it is not closed
    /// with this provider. One without a `wait_timeout` waits for a connection for
    /// ever, and a load has one for as long as it streams.
    pub fn on_pool(pool: Pool) -> PostgresBuilder {
        PostgresBuilder::on_pool(pool)
    }

    /// [Ends it](Provider::close), for all clones: lets go of the connections.
    /// Dropping the last clone does so as well.
    ///
    /// # Errors
    ///
    /// None; nothing that was committed is lost.
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

    /// The statements that prune tombstones with this commit, if it is time.
    fn prune_by_the_way(&self, batch: &Batch) -> Vec<Statement<'static>> {
        let is_delete = |change: &&Change| matches!(change.op, Op::Delete);
        let changes = batch.maps.iter().flat_map(|part| &part.changes);
        let deletes = changes.filter(is_delete).count();
        // Only a count: it matters to nothing else.
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

    async fn load<'a>(&'a self, map: &'a MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.shared.connections.check_open()?;
        load::load(&self.shared, map, wanted).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let (connections, options) = self.shared.both();
        let commit = || commit::commit(&self.shared, batch);
        self.explained(schema::on_tables(connections, options, commit).await)
    }

    /// Prunes tombstones, and forgets writers that have not written for long.
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
