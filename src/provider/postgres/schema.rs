//! The metadata tables, their creation and upgrades.

use xxhash_rust::xxh3::xxh3_64;

use super::{
    errors::{Failure, unusable},
    incarnations, inspection,
    options::{Options, literal},
    sessions::{Connections, Session},
    statement::Statement,
    tombstones, transaction, writers,
};
use crate::{
    error::Result,
    incarnation::Incarnation,
    name::MapName,
    provider::sql::{columns::quoted, numbers::from_bits},
    trace::PROVIDER,
};

/// The format of the tables that this version writes and reads.
///
/// Format 1 had no tombstones, and kept answers in a table `persistify_skipped`.
pub(super) const FORMAT: i64 = 2;

/// Creates or upgrades the metadata tables. Concurrent processes do this once.
pub(super) async fn prepare(connections: &Connections, options: &Options) -> Result<(), Failure> {
    let session = connections.session().await?;
    match make_tables(&session, options).await {
        Ok(()) => session.give_back(),
        Err(failure) => return Err(session.abandon(failure).await),
    }
    for (map, name) in &options.adopted {
        inspection::adopt(connections, options, map, name).await?;
    }
    Ok(())
}

async fn make_tables(session: &Session, options: &Options) -> Result<(), Failure> {
    if !is_current(session, options).await? {
        create(session, options).await?;
    }
    incarnations::make(session, options).await
}

/// Runs this work, and again if the database is empty because it was recreated or replaced
/// while maps are open. The database is then prepared like a new one, with a new
/// incarnation, by which each map learns that its commits are lost.
///
/// Repeating the work is safe, because a statement on a missing table aborted its
/// transaction without a change.
pub(super) async fn on_tables<T, W>(
    connections: &Connections,
    options: &Options,
    work: impl Fn() -> W,
) -> Result<T, Failure>
where
    W: Future<Output = Result<T, Failure>>,
{
    let missing = match work().await {
        Err(failure) if failure.lacks_table() => failure,
        done => return done,
    };
    let left = what_is_left(connections, options).await?;
    if left.is_empty() {
        tracing::warn!(target: PROVIDER, database = %options.database, "the database is empty: it was made anew or replaced while it was in use; its tables are made once more");
        prepare(connections, options).await?;
    } else if !left.iter().any(|table| table == "persistify_meta") {
        // Some of the tables were dropped. The others are neither deleted nor written to.
        return Err(missing);
    }
    // They exist again, created here or by another process.
    work().await
}

/// The existing metadata tables.
async fn what_is_left(
    connections: &Connections,
    options: &Options,
) -> Result<Vec<String>, Failure> {
    let sql = format!(
        "SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = {} AND starts_with(c.relname::text, 'persistify_')",
        literal(&options.schema)
    );
    let rows = connections.query(&sql).await?;
    let names = rows.iter().map(|row| Ok(row.try_get(0)?));
    names.collect()
}

async fn is_current(session: &Session, options: &Options) -> Result<bool, Failure> {
    Ok(format(session, options).await? == Some(FORMAT))
}

/// The format of the tables, if they exist.
async fn format(session: &Session, options: &Options) -> Result<Option<i64>, Failure> {
    // Queries the catalog itself: `to_regclass` would return the state before the wait
    // for the lock.
    let sql = format!(
        "SELECT current_setting('server_encoding'), EXISTS (SELECT 1 FROM pg_class AS c
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = {} AND c.relname = 'persistify_meta')",
        literal(&options.schema)
    );
    let Some(row) = session.row(&Statement::new(sql)).await? else {
        return Ok(None);
    };
    let encoding: &str = row.try_get(0)?;
    if encoding != "UTF8" {
        let message = format!(
            "the Postgres {} has the encoding {encoding}, which does not take every key and value; use a database with the encoding UTF8",
            options.database
        );
        return Err(unusable(message));
    }
    if !row.try_get::<_, bool>(1)? {
        return Ok(None);
    }
    known_format(session, options).await
}

async fn known_format(session: &Session, options: &Options) -> Result<Option<i64>, Failure> {
    let sql = format!(
        "SELECT value FROM {} WHERE name = 'format'",
        options.qualified("persistify_meta")
    );
    let Some(row) = session.row(&Statement::new(sql)).await? else {
        return Ok(None);
    };
    let format: i64 = row.try_get(0)?;
    if format > FORMAT {
        let message = format!(
            "the Postgres {} was written in format {format}, by a later version of this library; this one knows formats up to {FORMAT}: update the program",
            options.database
        );
        return Err(unusable(message));
    }
    Ok(Some(format))
}

/// Creates the tables, or upgrades them to this format. Concurrent processes wait for each
/// other, by a lock that ends with the transaction, and then check again.
async fn create(session: &Session, options: &Options) -> Result<(), Failure> {
    let name = xxh3_64(format!("persistify {}", options.schema).as_bytes());
    let lock = format!(
        "{}; SELECT pg_advisory_xact_lock({})",
        transaction::begin(options),
        from_bits(name)
    );
    session.begin(&lock).await?;
    match format(session, options).await? {
        Some(FORMAT) => {}
        Some(_) => session.batch(&upgrade(options)).await?,
        None => {
            create_schema(session, options).await?;
            session.batch(&tables(options)).await?;
        }
    }
    session.finish("COMMIT").await
}

/// The schema is created only if it is missing, because its user may lack the right to
/// create one.
async fn create_schema(session: &Session, options: &Options) -> Result<(), Failure> {
    let sql = format!(
        "SELECT 1 FROM pg_namespace WHERE nspname = {}",
        literal(&options.schema)
    );
    if session.row(&Statement::new(sql)).await?.is_some() {
        return Ok(());
    }
    let sql = format!("CREATE SCHEMA {}", quoted(&options.schema));
    session.batch(&sql).await
}

fn tables(options: &Options) -> String {
    let [meta, maps, writers] =
        ["meta", "maps", "writers"].map(|name| options.qualified(&format!("persistify_{name}")));
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
        {};
        INSERT INTO {meta} (name, value) VALUES ('format', {FORMAT})",
        added(options)
    )
}

/// The tables that format 1 lacks.
fn added(options: &Options) -> String {
    format!(
        "CREATE TABLE {} (
            writer uuid PRIMARY KEY,
            skipped text NOT NULL
        );
        {}",
        options.qualified("persistify_answers"),
        tombstones::create(options)
    )
}

/// Adds the tombstones. Earlier deletions left none, so they count as pruned. The lock waits
/// for commits in flight, so none of them deletes after that. (A program of an earlier
/// version that is still connected deletes without tombstones. No new one can connect.)
fn upgrade(options: &Options) -> String {
    let [meta, maps] =
        ["meta", "maps"].map(|name| options.qualified(&format!("persistify_{name}")));
    format!(
        "LOCK TABLE {maps} IN SHARE ROW EXCLUSIVE MODE;
        {};
        INSERT INTO {meta} (name, value)
            SELECT 'pruned ' || name, revision FROM {maps}
            WHERE companion IS NULL AND revision > 0;
        UPDATE {meta} SET value = {FORMAT} WHERE name = 'format'",
        added(options)
    )
}

/// Lists all maps that were ever written to.
pub(super) async fn maps(
    connections: &Connections,
    options: &Options,
) -> Result<Vec<MapName>, Failure> {
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

/// Checks that the database can be written to, by a write without a change.
pub(super) async fn ping(
    connections: &Connections,
    options: &Options,
) -> Result<Option<Incarnation>, Failure> {
    let sql = format!(
        "{}; UPDATE {} SET value = value WHERE name = 'format'; ROLLBACK",
        transaction::begin(options),
        options.qualified("persistify_meta")
    );
    let incarnation = incarnations::query(options);
    let work = async |session: Session| {
        session.begins();
        let found = match session.finish(&sql).await {
            Ok(()) => session.rows(&incarnation).await,
            Err(failure) => Err(failure),
        };
        (session, found)
    };
    let (session, found) = connections.begin(work).await?;
    session.give_back();
    incarnations::read(&found)
}

/// Prunes the tombstones of a map, and deletes writers that have been idle for long. If
/// there is nothing to delete, it only reads, which needs no permission to write.
pub(super) async fn tidy(
    connections: &Connections,
    options: &Options,
    map: &MapName,
) -> Result<(), Failure> {
    let any_to_prune = tombstones::any_to_prune(options, map);
    if !connections.query(&any_to_prune).await?.is_empty() {
        let prune = tombstones::prune(options, map);
        while !connections.query(&prune).await?.is_empty() {}
    }
    let old = connections.query(&writers::any_to_prune(options)).await?;
    if old.is_empty() {
        return Ok(());
    }
    connections.query(&writers::prune(options)).await.map(drop)
}
