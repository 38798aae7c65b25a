//! Tables of other programs: what they must be like.

use tokio_postgres::types::Type;

use super::{
    connections::{Connections, Lease},
    errors::Fault,
    options::{AdoptedName, Options},
    pipeline::Statement,
    place::{PLACE, Place},
    quoting::{MAX_NAME, quoted},
    time::Time,
    transaction,
    values::ValueType,
};
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
};

/// What a table of another program is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nature {
    values: ValueType,
    time: Time,
}

/// A column of a table, as Postgres describes it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a property of its own, and they go together in every way"
)]
struct Column {
    name: String,
    kind: String,
    not_null: bool,
    /// It fills itself where nothing is written.
    has_default: bool,
    /// It cannot be written.
    generated: bool,
    /// Two texts are the same only if their bytes are.
    by_bytes: bool,
}

/// Adopts a table for a map, once, whichever process comes first; makes the
/// table beside it.
///
/// # Errors
///
/// `Unusable` if it, a column or a permission is missing; `Invalid` if it
/// cannot hold a map, or not this one.
pub(super) async fn adopt(
    connections: &Connections,
    options: &Options,
    map: &MapName,
    name: &AdoptedName,
) -> Result<(), Fault> {
    let lease = connections.lease().await?;
    let adopting = Adopting {
        lease: &lease,
        options,
        map,
        name,
    };
    match adopting.look().await {
        // Most are adopted already, and a server that only reads will do then.
        Ok((_, true)) => {}
        Ok((nature, false)) => {
            if let Err(fault) = adopting.begin_and_note(nature).await {
                return Err(lease.abandon(fault.on_map(map)).await);
            }
        }
        Err(fault) => return Err(lease.give_up(fault.on_map(map))),
    }
    lease.give_back();
    Ok(())
}

struct Adopting<'a> {
    lease: &'a Lease,
    options: &'a Options,
    map: &'a MapName,
    name: &'a AdoptedName,
}

impl Adopting<'_> {
    /// What the table is like, and whether it was adopted as such already.
    async fn look(&self) -> Result<(Nature, bool), Fault> {
        let nature = self.inspect().await?;
        Ok((nature, self.is_known(nature).await?))
    }

    async fn begin_and_note(&self, nature: Nature) -> Result<(), Fault> {
        let client = self.lease.client()?;
        let begin = transaction::begin(self.options);
        self.lease.answer(client.batch_execute(&begin)).await?;
        self.note(nature).await?;
        self.lease.answer(client.batch_execute("COMMIT")).await
    }

    async fn is_known(&self, nature: Nature) -> Result<bool, Fault> {
        let Some(place) = self.place("").await? else {
            return Ok(false);
        };
        self.check_place(&place)?;
        Ok(place.values == nature.values && place.time == nature.time)
    }

    async fn place(&self, lock: &str) -> Result<Option<Place>, Fault> {
        let sql = format!(
            "SELECT {PLACE} FROM {} WHERE name = $1 {lock}",
            self.options.qualified("persistify_maps")
        );
        let asked = Statement::new(sql).with(self.map.as_str(), Type::TEXT);
        let found = self.lease.answer(asked.row(self.lease.client()?)).await?;
        found.as_ref().map(Place::read).transpose()
    }

    /// Under the lock of the row, or of the place where it is inserted.
    async fn note(&self, nature: Nature) -> Result<(), Fault> {
        let maps = self.options.qualified("persistify_maps");
        let companion = format!("persistify_of_{}", self.map.encoded(MAX_NAME - 14));
        let sql = format!(
            "INSERT INTO {maps} (name, table_name, companion, value_type, time_type)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"
        );
        let insert = Statement::new(sql)
            .with(self.map.as_str(), Type::TEXT)
            .with(self.name.quoted(), Type::TEXT)
            .with(companion.clone(), Type::TEXT)
            .with(nature.values.name(), Type::TEXT)
            .with(nature.time.name(), Type::TEXT);
        self.check_not_ours().await?;
        let client = self.lease.client()?;
        if self.lease.answer(insert.execute(client)).await? > 0 {
            let create = self.companion(&companion);
            return self.lease.answer(client.batch_execute(&create)).await;
        }
        let Some(place) = self.place("FOR UPDATE").await? else {
            return Err(self.held_by_another().into());
        };
        self.check_place(&place)?;
        let sql = format!("UPDATE {maps} SET value_type = $2, time_type = $3 WHERE name = $1");
        let update = Statement::new(sql)
            .with(self.map.as_str(), Type::TEXT)
            .with(nature.values.name(), Type::TEXT)
            .with(nature.time.name(), Type::TEXT);
        self.lease.answer(update.execute(client)).await.map(drop)
    }

    /// A table that was made here for another map stands under its plain name.
    async fn check_not_ours(&self) -> Result<(), Fault> {
        if self.name.schema != self.options.schema {
            return Ok(());
        }
        let maps = self.options.qualified("persistify_maps");
        let sql = format!("SELECT 1 FROM {maps} WHERE table_name = $1 AND companion IS NULL");
        let asked = Statement::new(sql).with(self.name.table.as_str(), Type::TEXT);
        match self.lease.answer(asked.row(self.lease.client()?)).await? {
            Some(_) => Err(self.held_by_another().into()),
            None => Ok(()),
        }
    }

    fn companion(&self, name: &str) -> String {
        format!(
            "CREATE TABLE {} (
                key text COLLATE \"C\" PRIMARY KEY,
                revision bigint NOT NULL,
                expires_at timestamptz,
                schema bigint NOT NULL DEFAULT 0,
                digest bytea NOT NULL
            )",
            self.options.qualified(name)
        )
    }

    fn check_place(&self, place: &Place) -> Result<()> {
        if place.companion.is_some() && place.table == self.name.quoted() {
            return Ok(());
        }
        let message = format!(
            "the map is kept in the table {} already, not in {}; give the table another map's name",
            place.table,
            self.name.quoted()
        );
        Err(Error::new(ErrorKind::Invalid, message).on_map(self.map))
    }

    fn held_by_another(&self) -> Error {
        let message = format!(
            "the table {} is another map already; a table holds one map",
            self.name.quoted()
        );
        Error::new(ErrorKind::Invalid, message).on_map(self.map)
    }

    async fn inspect(&self) -> Result<Nature, Fault> {
        let oid = self.check_table().await?;
        let found = self.columns(oid).await?;
        let columns = &self.options.columns;
        let key = self.column(&found, &columns.key)?;
        if !["text", "varchar"].contains(&key.kind.as_str()) {
            return Err(self.unfit(&format!("the column {:?} is not text", key.name)));
        }
        let value = self.column(&found, &columns.value)?;
        let values = match value.kind.as_str() {
            "varchar" => Some(ValueType::Text),
            kind => ValueType::of_name(kind),
        };
        let Some(values) = values else {
            let problem = format!("the column {:?} is neither text nor JSON", value.name);
            return Err(self.unfit(&problem));
        };
        self.check_others(&found)?;
        if !key.by_bytes || !self.is_unique(oid).await? {
            let problem = format!(
                "the column {:?} is not unique by itself, or compares otherwise than byte by byte",
                columns.key
            );
            return Err(self.unfit(&problem));
        }
        let time = found.iter().find(|c| c.name == columns.updated_at);
        time.map_or(Ok(()), |column| self.check_written(column))?;
        let time = time.map_or("", |column| &column.kind);
        let Some(time) = Time::of_name(time) else {
            let problem = format!("the column {:?} is no time but {time}", columns.updated_at);
            return Err(self.unfit(&problem));
        };
        Ok(Nature { values, time })
    }

    /// That it is a table, and ours to use.
    async fn check_table(&self) -> Result<u32, Fault> {
        let sql = "SELECT c.oid, c.relkind::text,
                has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
             FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2";
        let asked = Statement::new(sql.to_owned())
            .with(self.name.schema.as_str(), Type::TEXT)
            .with(self.name.table.as_str(), Type::TEXT);
        let found = asked.row(self.lease.client()?);
        let table = self.name.quoted();
        let Some(row) = self.lease.answer(found).await? else {
            let message = format!("the adopted table {table} is missing; create it, or restore it");
            return Err(Error::new(ErrorKind::Unusable, message)
                .on_map(self.map)
                .into());
        };
        if !["r", "p"].contains(&row.try_get(1)?) {
            return Err(self.unfit("it is a view, or otherwise no ordinary table"));
        }
        if !row.try_get::<_, bool>(2)? {
            let message = format!(
                "this user may not read and change the adopted table {table}; GRANT SELECT, INSERT, UPDATE, DELETE ON it"
            );
            return Err(Error::new(ErrorKind::Unusable, message)
                .on_map(self.map)
                .into());
        }
        Ok(row.try_get(0)?)
    }

    async fn columns(&self, oid: u32) -> Result<Vec<Column>, Fault> {
        let sql = format!(
            "SELECT a.attname::text, t.typname::text, a.attnotnull,
                a.atthasdef OR a.attidentity <> '', a.attgenerated <> '' OR a.attidentity = 'a',
                coalesce(c.collisdeterministic, true)
             FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
             LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
             WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped"
        );
        let client = self.lease.client()?;
        let rows = self.lease.answer(client.query_typed(&sql, &[])).await?;
        let columns = rows.iter().map(|row| {
            Ok(Column {
                name: row.try_get(0)?,
                kind: row.try_get(1)?,
                not_null: row.try_get(2)?,
                has_default: row.try_get(3)?,
                generated: row.try_get(4)?,
                by_bytes: row.try_get(5)?,
            })
        });
        columns.collect()
    }

    fn column<'c>(&self, found: &'c [Column], name: &str) -> Result<&'c Column, Fault> {
        let Some(column) = found.iter().find(|column| column.name == name) else {
            let message = format!(
                "the adopted table {} has no column {name:?}; name its columns with `.columns(..)`, or put it back",
                self.name.quoted()
            );
            return Err(Error::new(ErrorKind::Unusable, message)
                .on_map(self.map)
                .into());
        };
        self.check_written(column)?;
        Ok(column)
    }

    fn check_written(&self, column: &Column) -> Result<(), Fault> {
        if column.generated {
            return Err(self.unfit(&format!("the column {:?} is generated", column.name)));
        }
        Ok(())
    }

    /// A new entry brings a key, a value and a time; the table has to come up
    /// with the rest, or it would refuse every single one.
    fn check_others(&self, found: &[Column]) -> Result<(), Fault> {
        let columns = &self.options.columns;
        let ours = [&columns.key, &columns.value, &columns.updated_at];
        let mut others = found.iter().filter(|column| !ours.contains(&&column.name));
        let Some(column) = others.find(|column| column.not_null && !column.has_default) else {
            return Ok(());
        };
        let problem = format!(
            "the column {:?} must not be empty and has no default, so no entry can be added",
            column.name
        );
        Err(self.unfit(&problem))
    }

    /// By bytes in each of its indexes: with one that compares otherwise the row
    /// of another key would be updated.
    async fn is_unique(&self, oid: u32) -> Result<bool, Fault> {
        let sql = format!(
            "SELECT coalesce(bool_and(coalesce(c.collisdeterministic, true)), false)
                FROM pg_index AS i
                JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                LEFT JOIN pg_collation AS c ON c.oid = i.indcollation[0]
                WHERE i.indrelid = {oid} AND i.indisunique AND i.indimmediate AND i.indisvalid
                AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = 1
                AND a.attname = $1"
        );
        let asked = Statement::new(sql).with(self.options.columns.key.as_str(), Type::TEXT);
        let found = self.lease.answer(asked.one(self.lease.client()?)).await?;
        Ok(found.try_get(0)?)
    }

    fn unfit(&self, problem: &str) -> Fault {
        let message = format!(
            "the table {} cannot hold a map: {problem}; use another table",
            quoted(&self.name.table)
        );
        Error::new(ErrorKind::Invalid, message)
            .on_map(self.map)
            .into()
    }
}
