//! The catalog: the table and the revision counter of each map.

use tokio_postgres::{Row, error::SqlState};

use super::{
    Shared,
    errors::{Failure, unusable},
    options::{MAX_NAME, Options, literal},
    sessions::Session,
    statement::Statement,
    table::Table,
    times::Time,
    tombstones::Tombstones,
    transaction,
    values::ValueType,
};
use crate::{
    error::{Error, ErrorKind},
    name::MapName,
    provider::sql::numbers::to_revision,
    record::Revision,
};

/// A map in the catalog.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: i32,
    pub(super) map: MapName,
    /// The name of the table; for an adopted one, as written in SQL.
    pub(super) table: String,
    /// The companion of an adopted table.
    pub(super) companion: Option<String>,
    pub(super) values: ValueType,
    pub(super) time: Time,
    /// The counter: the revision of the last commit.
    pub(super) revision: Revision,
    /// Whether a trigger or a rule of another program may ignore changes.
    pub(super) has_triggers: bool,
}

/// The columns that an [`Entry`] is read from.
///
/// The triggers are those before each row: bits 1 and 2 of their type.
pub(super) const ENTRY: &str = "id, name, table_name, companion, value_type, time_type, revision,
     EXISTS (SELECT 1 FROM pg_class AS c WHERE c.relname = table_name AND c.relnamespace =
            (SELECT relnamespace FROM pg_class WHERE oid = persistify_maps.tableoid)
        AND (EXISTS (SELECT 1 FROM pg_rewrite WHERE ev_class = c.oid)
            OR EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = c.oid
                AND tgtype & 3 = 3 AND NOT tgisinternal AND tgenabled <> 'D')))";

/// The number of these columns.
pub(super) const ENTRY_COLUMNS: usize = 8;

impl Entry {
    pub(super) fn read(row: &Row) -> Result<Self, Failure> {
        let (values, time) = (row.try_get(4)?, row.try_get(5)?);
        let Some((values, time)) = ValueType::of_name(values).zip(Time::of_name(time)) else {
            let message = format!(
                "Postgres holds a map with values of type {values:?} and times of type {time:?}, which this version does not know; update the program"
            );
            return Err(unusable(message));
        };
        Ok(Self {
            id: row.try_get(0)?,
            map: MapName::parse(row.try_get::<_, &str>(1)?)?,
            table: row.try_get(2)?,
            companion: row.try_get(3)?,
            values,
            time,
            revision: to_revision(row.try_get(6)?),
            has_triggers: row.try_get(7)?,
        })
    }

    /// Reads the entry of a map with this locking clause.
    pub(super) async fn find(
        session: &Session,
        options: &Options,
        map: &MapName,
        lock: &str,
    ) -> Result<Option<Self>, Failure> {
        let catalog = options.qualified("persistify_maps");
        let sql = format!("SELECT {ENTRY} FROM {catalog} WHERE name = $1 {lock}");
        let found = session.row(&Statement::new(sql).text(map.as_str())).await?;
        found.as_ref().map(Self::read).transpose()
    }

    /// The columns of a table that this provider created.
    pub(super) fn tombstones(&self, options: &Options) -> Option<Tombstones> {
        let is_own = self.companion.is_none();
        is_own.then(|| Tombstones::new(options, self.id))
    }

    pub(super) fn table(&self, options: &Options) -> Table {
        let companion = self.companion.as_ref();
        let adopted = companion.map(|name| (options.qualified(name), self.time));
        let name = match adopted {
            Some(_) => self.table.clone(),
            None => options.qualified(&self.table),
        };
        Table::new(&self.map, name, &options.columns, self.values, adopted)
    }
}

/// The SQL for whether a load of changes finds the revisions in the table of an entry by
/// an index.
pub(super) fn is_indexed(options: &Options) -> String {
    format!(
        "EXISTS (SELECT 1 FROM pg_index AS i
            JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
            WHERE i.indrelid = to_regclass(format('%I.%I', {}, table_name))
            AND a.attname = 'revision' AND i.indisvalid)",
        literal(&options.schema)
    )
}

/// The SQL for the estimated number of rows in the table of an entry: the count of the
/// last analysis, or that of the statistics if it is higher.
pub(super) fn about_rows(options: &Options) -> String {
    format!(
        "(SELECT greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid))
          FROM pg_class AS c
          WHERE c.oid = to_regclass(CASE WHEN companion IS NULL
            THEN format('%I.%I', {}, table_name) ELSE table_name END))",
        literal(&options.schema)
    )
}

/// Creates the table of a map, unless another process has done so. This is a transaction
/// of its own, so that a later commit finds all its counters and can lock them in a fixed
/// order.
pub(super) async fn add_map(shared: &Shared, map: &MapName) -> Result<(), Failure> {
    let Shared {
        connections,
        options,
        ..
    } = shared;
    if options.adopted.contains_key(map) {
        return Err(no_longer_listed(map).into());
    }
    let session = connections.session().await?;
    match make_table(&session, options, map).await {
        Ok(()) => session.end("COMMIT").await,
        Err(failure) => Err(session.abandon(failure.on_map(map)).await),
    }
}

async fn make_table(session: &Session, options: &Options, map: &MapName) -> Result<(), Failure> {
    session.begin(&transaction::begin(options)).await?;
    if !list(session, options, map).await? {
        return Ok(());
    }
    let name = table_of(map);
    let table = options.qualified(&name);
    let table = Table::new(map, table, &options.columns, options.value_type, None);
    let made = session.batch(&table.create()).await;
    made.map_err(|failure| match failure.code() {
        Some(&SqlState::DUPLICATE_TABLE) => in_the_way(map, &name).into(),
        _ => failure,
    })
}

/// Adds a map to the catalog; returns false if it was there already.
pub(super) async fn list(
    session: &Session,
    options: &Options,
    map: &MapName,
) -> Result<bool, Failure> {
    let name = table_of(map);
    let insert = format!(
        "INSERT INTO {} (name, table_name, value_type, time_type)
         VALUES ($1, $2, $3, 'timestamptz')
         ON CONFLICT DO NOTHING",
        options.qualified("persistify_maps")
    );
    let insert = Statement::new(insert)
        .text(map.as_str())
        .text(&name)
        .text(options.value_type.name());
    Ok(session.execute(&insert).await? > 0)
}

/// The name of the table of a map.
pub(super) fn table_of(map: &MapName) -> String {
    // The prefix keeps it apart from the tables of this provider.
    format!("map_{}", map.encoded(MAX_NAME - "map_".len()))
}

/// The error if the table of a map exists but is not in the catalog.
pub(super) fn in_the_way(map: &MapName, table: &str) -> Error {
    let message = format!(
        "there is a table {table:?} where the map would be kept, and `persistify_maps` does not list it: put its row back there if it holds the map, adopt it with `.table(..)` if another program has made it, or rename it"
    );
    Error::new(ErrorKind::Unusable, message).on_map(map)
}

/// The error if the catalog entry of an adopted map is gone.
pub(super) fn no_longer_listed(map: &MapName) -> Error {
    let message = "`persistify_maps` does not list the adopted table of the map any more: put its row back there, or open the provider again to adopt the table anew if the map was dropped";
    Error::new(ErrorKind::Unusable, message).on_map(map)
}
