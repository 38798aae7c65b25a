//! Where a map is kept: its table, and its counter.

use tokio_postgres::{Row, types::Type};

use super::{
    connections::{Connections, Lease, unusable},
    errors::Fault,
    options::Options,
    pipeline::Statement,
    quoting::{MAX_NAME, literal},
    table::{Adopted, Table},
    time::Time,
    transaction,
    values::{ValueType, revision_from},
};
use crate::{
    error::{Error, ErrorKind},
    name::MapName,
    record::Revision,
};

/// Where a map is kept, and its counter.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: i32,
    pub(super) map: MapName,
    /// The name of the table; that of another program's stands here as it
    /// stands in SQL.
    pub(super) table: String,
    /// The table beside one that is another program's.
    pub(super) companion: Option<String>,
    pub(super) values: ValueType,
    pub(super) time: Time,
    /// The revision of the last commit.
    pub(super) revision: Revision,
    /// Whether a trigger or a rule of someone else may leave out what is written.
    pub(super) is_meddled_with: bool,
}

/// The columns that [`Place`] is read from.
///
/// The triggers are those before each row, 2 for the one and 1 for the other.
pub(super) const PLACE: &str = "id, name, table_name, companion, value_type, time_type, revision,
     EXISTS (SELECT 1 FROM pg_class AS c WHERE c.relname = table_name AND c.relnamespace =
            (SELECT relnamespace FROM pg_class WHERE oid = persistify_maps.tableoid)
        AND (EXISTS (SELECT 1 FROM pg_rewrite WHERE ev_class = c.oid)
            OR EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = c.oid
                AND tgtype & 3 = 3 AND NOT tgisinternal AND tgenabled <> 'D')))";

/// How many columns that are.
pub(super) const PLACE_COLUMNS: usize = 8;

impl Place {
    pub(super) fn read(row: &Row) -> Result<Self, Fault> {
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
            revision: revision_from(row.try_get(6)?),
            is_meddled_with: row.try_get(7)?,
        })
    }

    pub(super) fn table(&self, options: &Options) -> Table {
        let adopted = self.companion.as_ref().map(|companion| Adopted {
            companion: options.qualified(companion),
            time: self.time,
        });
        let name = match adopted {
            Some(_) => self.table.clone(),
            None => options.qualified(&self.table),
        };
        Table::new(&self.map, name, &options.columns, self.values, adopted)
    }
}

/// The SQL for about how many rows the table of a place has: what the last
/// analysis counted, or the statistics, which may know of more.
pub(super) fn about_rows(options: &Options) -> String {
    format!(
        "(SELECT greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid))
          FROM pg_class AS c
          WHERE c.oid = to_regclass(CASE WHEN companion IS NULL
            THEN format('%I.%I', {}, table_name) ELSE table_name END))",
        literal(&options.schema)
    )
}

/// Makes the table of a map, unless someone else was quicker. It stays empty
/// until a commit, in a transaction of its own: so a commit finds all its
/// counters there, and can lock them in one order.
pub(super) async fn add_map(
    connections: &Connections,
    options: &Options,
    map: &MapName,
) -> Result<(), Fault> {
    if options.adopted.contains_key(map) {
        return Err(no_longer_listed(map).into());
    }
    let lease = connections.lease().await?;
    match make_table(&lease, options, map).await {
        Ok(()) => {
            lease.give_back();
            Ok(())
        }
        Err(fault) => Err(lease.abandon(fault.on_map(map)).await),
    }
}

async fn make_table(lease: &Lease, options: &Options, map: &MapName) -> Result<(), Fault> {
    let client = lease.client()?;
    lease
        .answer(client.batch_execute(&transaction::begin(options)))
        .await?;
    let name = table_of(map);
    let note = format!(
        "INSERT INTO {} (name, table_name, value_type, time_type)
         VALUES ($1, $2, $3, 'timestamptz')
         ON CONFLICT DO NOTHING",
        options.qualified("persistify_maps")
    );
    let values = options.value_type;
    let note = Statement::new(note)
        .with(map.as_str(), Type::TEXT)
        .with(name.as_str(), Type::TEXT)
        .with(values.name(), Type::TEXT);
    if lease.answer(note.execute(client)).await? > 0 {
        let table = options.qualified(&name);
        let table = Table::new(map, table, &options.columns, values, None);
        let made = lease.answer(client.batch_execute(&table.create())).await;
        made.map_err(|fault| taken(fault, map, &name))?;
    }
    lease.answer(client.batch_execute("COMMIT")).await
}

fn taken(fault: Fault, map: &MapName, table: &str) -> Fault {
    match fault {
        Fault::Sql(cause) if cause.code().is_some_and(|state| state.code() == "42P07") => {
            in_the_way(map, table).with_source(cause).into()
        }
        other => other,
    }
}

/// What the table of a map is called.
pub(super) fn table_of(map: &MapName) -> String {
    // The prefix keeps it from being one of ours.
    format!("map_{}", map.encoded(MAX_NAME - "map_".len()))
}

/// There is a table where the map would be kept, and nobody knows whose.
pub(super) fn in_the_way(map: &MapName, table: &str) -> Error {
    let message = format!(
        "there is a table {table:?} where the map would be kept, and `persistify_maps` does not list it: put its row back there if it holds the map, adopt it with `.table(..)` if another program has made it, or rename it"
    );
    Error::new(ErrorKind::Unusable, message).on_map(map)
}

/// The row of a map that was adopted is gone.
pub(super) fn no_longer_listed(map: &MapName) -> Error {
    let message = "`persistify_maps` does not list the adopted table of the map any more: put its row back there";
    Error::new(ErrorKind::Unusable, message).on_map(map)
}
