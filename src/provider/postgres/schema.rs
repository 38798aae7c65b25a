//! What is kept beside the maps, and how it is made.

use tokio_postgres::Client;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    connections::{Connections, Lease, unusable},
    errors::Fault,
    incarnations, inspect,
    options::Options,
    quoting::{literal, quoted},
    transaction, writers,
};
use crate::{error::Result, incarnation::Incarnation, name::MapName, trace::PROVIDER};

/// The format of the tables that this version writes and reads.
pub(super) const FORMAT: i64 = 1;

/// Makes a database ready, once, whichever process comes first.
pub(super) async fn prepare(connections: &Connections, options: &Options) -> Result<(), Fault> {
    let lease = connections.lease().await?;
    match check(&lease, options).await {
        Ok(true) => {}
        Ok(false) => {
            if let Err(fault) = create(&lease, options).await {
                return Err(lease.abandon(fault).await);
            }
        }
        Err(fault) => return Err(lease.give_up(fault)),
    }
    if let Err(fault) = incarnations::make(&lease, options).await {
        return Err(lease.abandon(fault).await);
    }
    lease.give_back();
    for (map, name) in &options.adopted {
        inspect::adopt(connections, options, map, name).await?;
    }
    Ok(())
}

/// Runs this work, and once more if the database turns out to be empty: it was
/// made anew, or replaced, under maps that are open. It is made ready like any new
/// database then, with an incarnation of its own, by which each map learns that
/// its commits are gone.
///
/// The work may be repeated, because a statement about a table that is missing
/// has ended its transaction and changed nothing.
pub(super) async fn on_tables<T, W>(
    connections: &Connections,
    options: &Options,
    work: impl Fn() -> W,
) -> Result<T, Fault>
where
    W: Future<Output = Result<T, Fault>>,
{
    let missing = match work().await {
        Err(fault) if fault.lacks_table() => fault,
        done => return done,
    };
    let left = what_is_left(connections, options).await?;
    if left.is_empty() {
        tracing::warn!(target: PROVIDER, database = %options.place, "the database is empty: it was made anew or replaced while it was in use; its tables are made once more");
        prepare(connections, options).await?;
    } else if !left.iter().any(|table| table == "persistify_meta") {
        // Some of the tables were dropped. What the others hold is not thrown away,
        // and not added to.
        return Err(missing);
    }
    // Made anew, by another process if not here.
    work().await
}

/// The tables beside the maps that are there.
async fn what_is_left(connections: &Connections, options: &Options) -> Result<Vec<String>, Fault> {
    let sql = format!(
        "SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = {} AND starts_with(c.relname::text, 'persistify_')",
        literal(&options.schema)
    );
    let rows = connections.query(&sql).await?;
    let names = rows.iter().map(|row| Ok(row.try_get(0)?));
    names.collect()
}

/// Whether the tables are there, in a format that is known.
async fn check(lease: &Lease, options: &Options) -> Result<bool, Fault> {
    let client = lease.client()?;
    // A look at the catalogue itself: `to_regclass` would go on answering what
    // it answered before the wait for the lock.
    let sql = format!(
        "SELECT current_setting('server_encoding'), EXISTS (SELECT 1 FROM pg_class AS c
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = {} AND c.relname = 'persistify_meta')",
        literal(&options.schema)
    );
    let row = lease.answer(client.query_typed_one(&sql, &[])).await?;
    let encoding: &str = row.try_get(0)?;
    if encoding != "UTF8" {
        let message = format!(
            "the Postgres {} has the encoding {encoding}, which does not take every key and value; use a database with the encoding UTF8",
            options.place
        );
        return Err(unusable(message));
    }
    if !row.try_get(1)? {
        return Ok(false);
    }
    check_format(lease, client, options).await
}

async fn check_format(lease: &Lease, client: &Client, options: &Options) -> Result<bool, Fault> {
    let sql = format!(
        "SELECT value FROM {} WHERE name = 'format'",
        options.qualified("persistify_meta")
    );
    let found = lease.answer(client.query_typed_opt(&sql, &[])).await?;
    let Some(row) = found else { return Ok(false) };
    let format: i64 = row.try_get(0)?;
    if format > FORMAT {
        let message = format!(
            "the Postgres {} was written in format {format}, by a later version of this library; this one knows formats up to {FORMAT}: update the program",
            options.place
        );
        return Err(unusable(message));
    }
    Ok(true)
}

/// Makes the tables. Processes that come at the same time wait for each other,
/// by a lock that ends with the transaction, and then look again.
async fn create(lease: &Lease, options: &Options) -> Result<(), Fault> {
    let client = lease.client()?;
    let name = xxh3_64(format!("persistify {}", options.schema).as_bytes());
    let lock = format!(
        "{}; SELECT pg_advisory_xact_lock({})",
        transaction::begin(options),
        i64::from_ne_bytes(name.to_ne_bytes())
    );
    lease.answer(client.batch_execute(&lock)).await?;
    let ready = check(lease, options).await?;
    if !ready {
        create_schema(lease, client, options).await?;
        let tables = tables(options);
        lease.answer(client.batch_execute(&tables)).await?;
    }
    lease.answer(client.batch_execute("COMMIT")).await
}

/// Made only where it is missing: who may use a schema need not be one who may
/// make some.
async fn create_schema(lease: &Lease, client: &Client, options: &Options) -> Result<(), Fault> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = {})",
        literal(&options.schema)
    );
    let found = lease.answer(client.query_typed_one(&sql, &[])).await?;
    if found.try_get(0)? {
        return Ok(());
    }
    let sql = format!("CREATE SCHEMA {}", quoted(&options.schema));
    lease.answer(client.batch_execute(&sql)).await
}

fn tables(options: &Options) -> String {
    let [meta, maps, writers, skipped] = ["meta", "maps", "writers", "skipped"]
        .map(|name| options.qualified(&format!("persistify_{name}")));
    format!(
        "CREATE TABLE {meta} (
            name text PRIMARY KEY,
            value bigint NOT NULL
        );
        CREATE TABLE {maps} (
            id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text COLLATE \"C\" NOT NULL UNIQUE,
            table_name text COLLATE \"C\" NOT NULL UNIQUE,
            companion text COLLATE \"C\" UNIQUE,
            value_type text NOT NULL,
            time_type text NOT NULL,
            revision bigint NOT NULL DEFAULT 0
        );
        CREATE TABLE {writers} (
            writer uuid PRIMARY KEY,
            sequence bigint NOT NULL,
            revision bigint NOT NULL,
            skipped integer NOT NULL,
            at timestamptz NOT NULL
        );
        CREATE TABLE {skipped} (
            writer uuid NOT NULL,
            position bigint NOT NULL,
            map text NOT NULL,
            key bytea NOT NULL,
            value bytea,
            updated_at timestamptz,
            revision bigint,
            expires_at timestamptz,
            schema bigint,
            PRIMARY KEY (writer, position)
        );
        INSERT INTO {meta} (name, value) VALUES ('format', {FORMAT})"
    )
}

/// All maps that were ever written to.
pub(super) async fn maps(
    connections: &Connections,
    options: &Options,
) -> Result<Vec<MapName>, Fault> {
    let sql = format!(
        "SELECT convert_to(name, 'UTF8') FROM {} WHERE revision > 0 OR companion IS NOT NULL",
        options.qualified("persistify_maps")
    );
    let rows = connections.query(&sql).await?;
    let names = rows.iter().map(|row| {
        let name: &[u8] = row.try_get(0)?;
        Ok(MapName::parse(&*String::from_utf8_lossy(name))?)
    });
    names.collect()
}

/// Writes, and takes it back.
pub(super) async fn ping(
    connections: &Connections,
    options: &Options,
) -> Result<Option<Incarnation>, Fault> {
    let sql = format!(
        "{}; UPDATE {} SET value = value WHERE name = 'format'; ROLLBACK",
        transaction::begin(options),
        options.qualified("persistify_meta")
    );
    connections.run(&sql).await?;
    let asked = format!("SELECT {}", incarnations::current(options));
    let rows = connections.query(&asked).await?;
    rows.first().map_or(Ok(None), incarnations::read)
}

/// Forgets writers that have not written for long, if there are any.
pub(super) async fn tidy(connections: &Connections, options: &Options) -> Result<(), Fault> {
    let old = connections.query(&writers::any_to_prune(options)).await?;
    if old.is_empty() {
        return Ok(());
    }
    connections.query(&writers::prune(options)).await.map(drop)
}
