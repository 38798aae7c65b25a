//! Where a map is kept: its table, and its counter.

use tokio_postgres::{Row, types::Type};

use super::{
    connections::{Connections, Lease, unusable},
    errors::Fault,
    options::Options,
    pipeline::Statement,
    quoting::{MAX_NAME, literal},
    table::Adopted,
    table::Table,
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
}

/// The columns that [`Place`] is read from.
pub(super) const PLACE: &str = "id, name, table_name, companion, value_type, time_type, revision";

/// How many columns that are.
pub(super) const PLACE_COLUMNS: usize = 7;

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
    // The prefix keeps it from being one of ours.
    let name = format!("map_{}", map.encoded(MAX_NAME - "map_".len()));
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
            let message = format!(
                "there is a table {table:?} of another program where the map would be kept; adopt it with `.table(..)`, or rename it"
            );
            let error = Error::new(ErrorKind::Unusable, message).with_source(cause);
            Fault::Ours(error.on_map(map))
        }
        other => other,
    }
}
