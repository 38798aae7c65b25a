//! Adopting tables of other programs: requirements and registration.

use super::{
    catalog::Entry,
    errors::Failure,
    options::{MAX_NAME, Options, TableName},
    sessions::{Connections, Session},
    statement::Statement,
    times::Time,
    transaction,
    values::ValueType,
};
use crate::{
    error::{Error, ErrorKind},
    name::MapName,
    provider::sql::inspection::{Candidate, Column, kept_elsewhere, missing, taken, unfit},
};

/// Adopts a table for a map and creates its companion. Concurrent processes do this once.
///
/// # Errors
///
/// `Unusable` if the table, a column or a permission is missing; `Invalid` if the table
/// cannot store a map, or belongs to another map.
pub(super) async fn adopt(
    connections: &Connections,
    options: &Options,
    map: &MapName,
    name: &TableName,
) -> Result<(), Failure> {
    let session = connections.session().await?;
    let adoption = Adoption {
        session: &session,
        options,
        map,
        name,
        table: name.quoted(),
    };
    match adoption.run().await {
        Ok(()) => {
            session.give_back();
            Ok(())
        }
        Err(failure) => Err(session.abandon(failure.on_map(map)).await),
    }
}

/// The column types of an adopted table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nature {
    values: ValueType,
    time: Time,
}

/// The type of a column.
struct Kind {
    name: String,
    /// Texts are equal only if their bytes are.
    by_bytes: bool,
}

struct Adoption<'a> {
    session: &'a Session,
    options: &'a Options,
    map: &'a MapName,
    name: &'a TableName,
    /// The name, as written in SQL.
    table: String,
}

impl Adoption<'_> {
    async fn run(&self) -> Result<(), Failure> {
        let nature = self.inspect().await?;
        // If the table is adopted already, a read-only server is sufficient.
        if self.is_known(nature, "").await? {
            return Ok(());
        }
        self.session
            .begin(&transaction::begin(self.options))
            .await?;
        self.note(nature).await?;
        self.session.finish("COMMIT").await
    }

    /// Whether the catalog has the map with this table; locks the entry.
    async fn is_known(&self, nature: Nature, lock: &str) -> Result<bool, Failure> {
        let entry = Entry::find(self.session, self.options, self.map, lock).await?;
        let Some(entry) = entry else {
            return Ok(false);
        };
        if entry.companion.is_none() || entry.table != self.table {
            return Err(kept_elsewhere(self.map, &entry.table, &self.table).into());
        }
        Ok(entry.values == nature.values && entry.time == nature.time)
    }

    /// Adds the table to the catalog, under the lock of its entry or of the inserted row.
    async fn note(&self, nature: Nature) -> Result<(), Failure> {
        self.check_not_ours().await?;
        let maps = self.options.qualified("persistify_maps");
        let companion = format!("persistify_of_{}", self.map.encoded(MAX_NAME - 14));
        let sql = format!(
            "INSERT INTO {maps} (name, table_name, companion, value_type, time_type)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"
        );
        let insert = Statement::new(sql)
            .text(self.map.as_str())
            .text(&self.table)
            .text(&companion)
            .text(nature.values.name())
            .text(nature.time.name());
        if self.session.execute(&insert).await? > 0 {
            return self.session.batch(&self.create(&companion)).await;
        }
        let is_known = self.is_known(nature, "FOR UPDATE").await?;
        let sql = format!("UPDATE {maps} SET value_type = $2, time_type = $3 WHERE name = $1");
        let update = Statement::new(sql)
            .text(self.map.as_str())
            .text(nature.values.name())
            .text(nature.time.name());
        if !is_known && self.session.execute(&update).await? == 0 {
            return Err(taken(self.map, &self.table).into());
        }
        Ok(())
    }

    /// The table of another map of this provider is in the catalog under its plain name.
    async fn check_not_ours(&self) -> Result<(), Failure> {
        if self.name.schema != self.options.schema {
            return Ok(());
        }
        let maps = self.options.qualified("persistify_maps");
        let sql = format!("SELECT 1 FROM {maps} WHERE table_name = $1 AND companion IS NULL");
        match self
            .session
            .row(&Statement::new(sql).text(&self.name.table))
            .await?
        {
            Some(_) => Err(taken(self.map, &self.table).into()),
            None => Ok(()),
        }
    }

    fn create(&self, companion: &str) -> String {
        format!(
            "CREATE TABLE {} (
                key text COLLATE \"C\" PRIMARY KEY,
                revision bigint NOT NULL,
                expires_at timestamptz,
                schema bigint NOT NULL DEFAULT 0,
                digest bytea NOT NULL
            )",
            self.options.qualified(companion)
        )
    }

    async fn inspect(&self) -> Result<Nature, Failure> {
        let oid = self.check_table().await?;
        let columns = &self.options.columns;
        let candidate = Candidate {
            map: self.map,
            table: &self.table,
            columns,
            found: self.columns(oid).await?,
            is_same: |a, b| a == b,
        };
        let (key, value) = (candidate.key()?, candidate.value()?);
        if !["text", "varchar"].contains(&key.kind.name.as_str()) {
            let problem = format!("the column {:?} is not text", key.name);
            return Err(candidate.unfit(&problem).into());
        }
        let values = match value.kind.name.as_str() {
            "varchar" => Some(ValueType::Text),
            // It is unknown which bytes of another program are JSON.
            kind => ValueType::of_name(kind).filter(|kind| *kind != ValueType::Bytea),
        };
        let Some(values) = values else {
            let problem = format!("the column {:?} is neither text nor JSON", value.name);
            return Err(candidate.unfit(&problem).into());
        };
        candidate.check_others()?;
        if !key.kind.by_bytes || !self.is_unique(oid).await? {
            return Err(candidate.not_unique().into());
        }
        let time = candidate.updated_at();
        time.map_or(Ok(()), |column| candidate.check_written(column))?;
        let time = time.map_or("", |column| &column.kind.name);
        let Some(time) = Time::of_name(time) else {
            let problem = format!("the column {:?} is no time but {time}", columns.updated_at);
            return Err(candidate.unfit(&problem).into());
        };
        Ok(Nature { values, time })
    }

    /// Checks that the relation is a table that this user may write to.
    async fn check_table(&self) -> Result<u32, Failure> {
        let sql = "SELECT c.oid, c.relkind::text,
                has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
             FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2";
        let asked = Statement::new(sql)
            .text(&self.name.schema)
            .text(&self.name.table);
        let Some(row) = self.session.row(&asked).await? else {
            return Err(missing(self.map, &self.table).into());
        };
        if !["r", "p"].contains(&row.try_get(1)?) {
            let problem = "it is a view, or otherwise no ordinary table";
            return Err(unfit(self.map, &self.table, problem).into());
        }
        if !row.try_get::<_, bool>(2)? {
            let message = format!(
                "this user may not read and change the adopted table {}; GRANT SELECT, INSERT, UPDATE, DELETE ON it",
                self.table
            );
            let error = Error::new(ErrorKind::Unusable, message);
            return Err(error.on_map(self.map).into());
        }
        Ok(row.try_get(0)?)
    }

    async fn columns(&self, oid: u32) -> Result<Vec<Column<Kind>>, Failure> {
        let sql = format!(
            "SELECT a.attname::text, t.typname::text, coalesce(c.collisdeterministic, true),
                a.attnotnull AND NOT a.atthasdef AND a.attidentity = '',
                a.attgenerated <> '' OR a.attidentity = 'a'
             FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
             LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
             WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped"
        );
        let rows = self.session.rows(&Statement::new(sql)).await?;
        let columns = rows.iter().map(|row| {
            Ok(Column {
                name: row.try_get(0)?,
                kind: Kind {
                    name: row.try_get(1)?,
                    by_bytes: row.try_get(2)?,
                },
                required: row.try_get(3)?,
                generated: row.try_get(4)?,
            })
        });
        columns.collect()
    }

    /// Whether each of its unique indexes compares bytes. Otherwise an upsert could update
    /// the row of another key.
    async fn is_unique(&self, oid: u32) -> Result<bool, Failure> {
        let sql = format!(
            "SELECT coalesce(bool_and(coalesce(c.collisdeterministic, true)), false)
                FROM pg_index AS i
                JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                LEFT JOIN pg_collation AS c ON c.oid = i.indcollation[0]
                WHERE i.indrelid = {oid} AND i.indisunique AND i.indimmediate AND i.indisvalid
                AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = 1
                AND a.attname = $1"
        );
        let asked = Statement::new(sql).text(&self.options.columns.key);
        let found = self.session.row(&asked).await?;
        let found = found.map(|row| row.try_get(0)).transpose()?;
        Ok(found.unwrap_or_default())
    }
}
