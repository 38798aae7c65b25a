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

/// Options of a connection to a Postgres database.
///
/// Created by [`Postgres::builder`] or [`Postgres::on_pool`].
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
                database: "database of the given pool".into(),
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

    /// Sets the schema of the tables, which is created if it is missing; `public` by
    /// default.
    ///
    /// Programs that use different schemas of one database share nothing.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.options.schema = schema.into();
        self
    }

    /// Sets the maximum number of open connections: at least 1, 8 by default.
    ///
    /// A commit holds one while it runs, a load while it streams. With more connections,
    /// more maps commit at the same time. Each is a process on the server, which has a
    /// limit of its own.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.pooling.max_connections = Some(connections);
        self
    }

    /// Sets how long connecting may take; 10 seconds by default. After that, a call fails
    /// as `Unavailable`, with nothing applied.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.pooling.connect_timeout = Some(timeout);
        self
    }

    /// Sets how long a call waits for a free connection; 10 seconds by default. After
    /// that, it fails as `Unavailable`, with nothing applied.
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.pooling.wait_timeout = Some(timeout);
        self
    }

    /// Sets how long one statement may run on the server: 30 seconds by default, at most
    /// 2,147,483,647 ms; zero removes the limit. After that, the call fails as
    /// `Unavailable`, with nothing applied.
    ///
    /// If the server falls silent, a call waits 5 seconds longer; without a limit, it
    /// waits until the operating system gives up the connection. A load that streams may
    /// take any time.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.options.statement_timeout = timeout;
        self
    }

    /// Sets how long a commit waits for a lock that another connection holds: 5 seconds by
    /// default, at most 2,147,483,647 ms; zero removes the limit. After that, it fails as
    /// `Unavailable`, with nothing applied.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.options.lock_timeout = timeout;
        self
    }

    /// Sets the name under which the server lists the connections. By default it is that
    /// of the URL, or `persistify`.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.pooling.application_name = Some(name.into());
        self
    }

    /// Sets whether connections are encrypted. By default the `sslmode` of the URL decides
    /// (`disable`, `prefer` or `require`; `verify-ca` and `verify-full` mean `require`),
    /// or else it is [`Tls::Prefer`].
    pub fn tls(mut self, tls: Tls) -> Self {
        self.pooling.tls = Some(tls);
        self
    }

    /// Sets a PEM file of root certificates to trust instead of the system's. By default
    /// it is the `sslrootcert` of the URL, if there is one. `sslrootcert=system` requires
    /// TLS with the system's certificates.
    pub fn root_certificate(mut self, path: impl Into<PathBuf>) -> Self {
        self.pooling.root_certificate = Some(path.into());
        self
    }

    /// Sets the type of the value column in new tables; [`ValueType::Jsonb`] by default.
    /// An existing table keeps its type.
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

    /// Adopts an existing table for a map; other programs may go on reading and writing
    /// it. The table is one of the [schema](Self::schema), or of another schema, as in
    /// `sales.limits`. By default every map has a table of its own.
    ///
    /// The table is not altered: revisions and expiries are stored in a companion table,
    /// and its other columns keep their values. It needs a key column of text with a
    /// unique constraint of its own, and a value column of `text`, `varchar`, `json` or
    /// `jsonb`, with the names that [`columns`](Self::columns) sets. New rows leave out
    /// all other columns, so these need a default or allow NULL.
    ///
    /// A load reads the whole table to find the changes of other programs, which takes
    /// several times as long as for a table of the map's own. Loads of changes and values
    /// of bytes are `Unsupported`. A change that a trigger ignores is refused; that
    /// includes `suppress_redundant_updates_trigger`.
    pub fn table(mut self, map: impl Into<String>, table: impl Into<String>) -> Self {
        self.adopt.push((map.into(), table.into()));
        self
    }

    /// Sets the names of the columns in all tables of this schema: `key`, `value` and
    /// `updated_at` by default.
    ///
    /// The three names differ, and none is `revision`, `expires_at`, `schema` or
    /// `long_key`. In an adopted table, the time column may be missing; otherwise it is a
    /// `timestamptz`, a `timestamp` (in UTC) or a `bigint` (milliseconds since 1970).
    /// Tables that were created with other names do not open.
    pub fn columns(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
        updated_at: impl Into<String>,
    ) -> Self {
        self.options.columns = Columns::new(key, value, updated_at);
        self
    }

    /// Connects, and creates the tables that all maps share if they are missing.
    ///
    /// # Errors
    ///
    /// - `Invalid`: an option is out of bounds, the URL cannot be parsed, or an adopted
    ///   table cannot hold a map.
    /// - `Unusable`: the server rejects the user, or the user lacks a permission; a later
    ///   version of this library wrote the database; or an adopted table is missing.
    /// - `Unavailable`: the server cannot be reached.
    ///
    /// The stored maps are unchanged.
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
                let problem =
                    "options of the connections are those of the given pool; set them there";
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
    // A URL holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder")
            .field("pooling", &self.pooling)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
