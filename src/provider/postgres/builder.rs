//! The options of a Postgres database.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use deadpool_postgres::Pool;

use super::{
    Postgres,
    address::{Address, Pooling},
    options::{Options, TableName, check_name, invalid, of_database},
    sessions::Connections,
    tls::Tls,
    values::ValueType,
};
use crate::{
    error::Result,
    provider::{
        ledger::TOMBSTONES_KEPT,
        sql::{
            columns::Columns,
            options::{Problem, adopt},
        },
    },
};

/// Options of a Postgres database, before it is connected to.
///
/// Made by [`Postgres::builder`] or [`Postgres::on_pool`].
#[must_use = "nothing is connected before `connect`"]
pub struct PostgresBuilder {
    source: Source,
    pooling: Pooling,
    options: Options,
    adopt: Vec<(String, String)>,
}

/// Where connections come from.
enum Source {
    Url(String),
    Pool(Pool),
}

impl PostgresBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self::from_source(Source::Url(url.to_owned()))
    }

    pub(super) fn on_pool(pool: Pool) -> Self {
        Self::from_source(Source::Pool(pool))
    }

    fn from_source(source: Source) -> Self {
        Self {
            source,
            pooling: Pooling::default(),
            options: Options {
                database: "database of the pool that was handed in".into(),
                schema: "public".into(),
                columns: Columns::default(),
                value_type: ValueType::Jsonb,
                statement_timeout: Duration::from_secs(30),
                lock_timeout: Duration::from_secs(5),
                tombstones_kept: TOMBSTONES_KEPT,
                adopted: BTreeMap::new(),
            },
            adopt: Vec::new(),
        }
    }

    /// The schema that the tables are in: `public` by default; it is made if
    /// there is none.
    ///
    /// Programs with different schemas share nothing, on one database.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.options.schema = schema.into();
        self
    }

    /// How many connections are open at the same time: 8 by default, at least
    /// one.
    ///
    /// A commit needs one for as long as it takes, a load for as long as it
    /// streams. More let more maps commit at once; each is a process of the
    /// server, which has a limit as well.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.pooling.max_connections = Some(connections);
        self
    }

    /// How long it may take to connect; then a call is `Unavailable`, with
    /// nothing applied. 10 seconds by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.pooling.connect_timeout = Some(timeout);
        self
    }

    /// How long a call waits for one of the connections to be free; then it is
    /// `Unavailable`, with nothing applied. 10 seconds by default.
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.pooling.wait_timeout = Some(timeout);
        self
    }

    /// How long a single statement may take, on the server; then it is
    /// `Unavailable`, with nothing applied.
    ///
    /// 30 seconds by default; zero is no limit; at most about 24 days. An answer
    /// of a server that has fallen silent is waited for a little longer than that;
    /// without a limit, for as long as the system keeps the connection. A load that
    /// streams may take any time.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.options.statement_timeout = timeout;
        self
    }

    /// How long a commit waits for another connection, or another program,
    /// that holds a lock; then it is `Unavailable`, with nothing applied.
    ///
    /// 5 seconds by default; zero is no limit; at most about 24 days.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.options.lock_timeout = timeout;
        self
    }

    /// What the server shows these connections as: what the url says, or
    /// `persistify`.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.pooling.application_name = Some(name.into());
        self
    }

    /// Whether connections are encrypted: what the url says in `sslmode`
    /// (`disable`, `prefer`, `require`; `verify-ca` and `verify-full` are
    /// `require`), or [`Tls::Prefer`].
    pub fn tls(mut self, tls: Tls) -> Self {
        self.pooling.tls = Some(tls);
        self
    }

    /// A file (PEM) of the certificates that may have signed the server's, in
    /// place of the system's: what the url says in `sslrootcert`, or none; the
    /// system's, which are then required, are `sslrootcert=system`.
    pub fn root_certificate(mut self, path: impl Into<PathBuf>) -> Self {
        self.pooling.root_certificate = Some(path.into());
        self
    }

    /// The type of the column of the values, in tables that are made from now
    /// on: [`ValueType::Jsonb`] by default. A table keeps the one that it was
    /// made with.
    pub fn value_type(mut self, value_type: ValueType) -> Self {
        self.options.value_type = value_type;
        self
    }

    /// Sets for how long tombstones of deleted entries are kept, for readers that follow
    /// the [changes](crate::Wanted::Changed) of a map; a day by default, more than 100
    /// years is for ever.
    ///
    /// Older ones are pruned after every thousandth deletion, about, and when a map is
    /// closed. Each process that writes to the database prunes by its own setting.
    pub fn keep_tombstones(mut self, time: Duration) -> Self {
        self.options.tombstones_kept = time;
        self
    }

    /// Keeps a map in an existing table of another program, which goes on
    /// reading and writing it. It is the name of a table in the
    /// [schema](Self::schema), or of one elsewhere: `sales.limits`.
    ///
    /// None by default; a table of its own is made for every other map. The
    /// table is not altered: revisions and expiries are kept in a companion table,
    /// and its other columns (which may be empty, or have a default, because new
    /// rows leave them out) keep their values. It needs a column for the key that
    /// is text and unique in itself, and one for the value that is text, `json` or
    /// `jsonb`, named as [`columns`](Self::columns) says. Values of bytes are refused
    /// as `Unsupported`, and so are loads of changes. Each load reads the whole
    /// table to find the changes of the other program, which takes several times
    /// as long as for a table of its own. A change that a trigger ignores is
    /// refused, also by `suppress_redundant_updates_trigger`.
    pub fn table(mut self, map: impl Into<String>, table: impl Into<String>) -> Self {
        self.adopt.push((map.into(), table.into()));
        self
    }

    /// The names of the columns, in all tables of this schema: `key`, `value`
    /// and `updated_at` by default.
    ///
    /// The names are any three different ones but `revision`, `expires_at`,
    /// `schema` and `long_key`. An adopted table may be without the last of the
    /// three: then it is not written; otherwise it is a `timestamptz`, a
    /// `timestamp` (in UTC) or a `bigint` (milliseconds since 1970). Tables that
    /// were made under other names do not open under these.
    pub fn columns(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
        updated_at: impl Into<String>,
    ) -> Self {
        self.options.columns = Columns::new(key, value, updated_at);
        self
    }

    /// Connects, and makes what is needed beside the maps, once.
    ///
    /// # Errors
    ///
    /// - `Invalid`: an option is out of bounds, the url cannot be read, or an
    ///   adopted table cannot hold a map.
    /// - `Unusable`: the server does not let this user in or do what it needs,
    ///   its database was written to by a later version of this library, or an
    ///   adopted table is missing.
    /// - `Unavailable`: the server cannot be reached just now.
    ///
    /// In all of them, what was stored is as it was.
    pub async fn connect(mut self) -> Result<Postgres> {
        for (map, table) in std::mem::take(&mut self.adopt) {
            let name = self.table_name(&table).map_err(of_database)?;
            let is_same = |other: &TableName| *other == name;
            let adopted = &mut self.options.adopted;
            adopt(adopted, &map, name.clone(), is_same, of_database)?;
        }
        self.options.check().map_err(of_database)?;
        let (pool, own) = match self.source {
            Source::Url(url) => {
                let address = Address::parse(&url, &self.pooling)?;
                self.options.database = address.place();
                (address.pool(&self.pooling)?, true)
            }
            Source::Pool(_) if self.pooling != Pooling::default() => {
                let problem = "options of the connections belong to the pool that was handed in";
                return Err(invalid("pool", problem));
            }
            Source::Pool(pool) => (pool, false),
        };
        let connections = Connections::new(pool, own, self.options.statement_timeout);
        Postgres::start(connections, self.options).await
    }

    fn table_name(&self, table: &str) -> Result<TableName, Problem> {
        let (schema, table) = match table.split_once('.') {
            Some(both) => both,
            None => (self.options.schema.as_str(), table),
        };
        check_name("table", schema)?;
        check_name("table", table)?;
        if table.starts_with("persistify_") || schema.starts_with("pg_") {
            let problem = format!("{table:?} is not a table of another program");
            return Err(Problem::new("table", problem));
        }
        Ok(TableName {
            schema: schema.to_owned(),
            table: table.to_owned(),
        })
    }
}

impl fmt::Debug for PostgresBuilder {
    // A url holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder")
            .field("pooling", &self.pooling)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
