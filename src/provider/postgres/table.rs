//! The table of a map, and the SQL that it takes.

use super::{keys::StoredKey, options::Columns, quoting::quoted, time::Time, values::ValueType};
use crate::name::MapName;

/// The table of a map. All names are quoted, and carry their schema.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) map: MapName,
    pub(super) name: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) updated_at: String,
    /// What the column of the values is.
    pub(super) values: ValueType,
    /// What is known of a table of another program.
    pub(super) adopted: Option<Adopted>,
}

/// What is known of a table of another program.
#[derive(Clone, Debug)]
pub(super) struct Adopted {
    /// The table beside it, with what else is known of its rows.
    pub(super) companion: String,
    pub(super) time: Time,
}

impl Table {
    pub(super) fn new(
        map: &MapName,
        name: String,
        columns: &Columns,
        values: ValueType,
        adopted: Option<Adopted>,
    ) -> Self {
        Self {
            map: map.clone(),
            name,
            key: quoted(&columns.key),
            value: quoted(&columns.value),
            updated_at: quoted(&columns.updated_at),
            values,
            adopted,
        }
    }

    // The key is a primary key, so that the table can be replicated. No index
    // beside that and the small one of the expiries: each would slow down
    // every write, for loads that are rare.
    pub(super) fn create(&self) -> String {
        let Self {
            name,
            key,
            value,
            updated_at,
            ..
        } = self;
        format!(
            "CREATE TABLE {name} (
                {key} text COLLATE \"C\" PRIMARY KEY,
                {value} {} NOT NULL,
                {updated_at} timestamptz,
                revision bigint NOT NULL,
                expires_at timestamptz,
                schema bigint NOT NULL DEFAULT 0,
                long_key text COLLATE \"C\"
            );
            CREATE INDEX ON {name} (expires_at) WHERE expires_at IS NOT NULL",
            self.values.name()
        )
    }

    /// Selects what [`Stored`](super::rows::Stored) reads, of the rows that the
    /// rest says.
    pub(super) fn select(&self, rest: &str) -> String {
        let Self {
            name, key, value, ..
        } = self;
        match &self.adopted {
            None => format!(
                "SELECT t.{key}, t.long_key, t.{value}, t.{}, t.revision, t.expires_at, t.schema
                 FROM {name} AS t {rest}",
                self.updated_at
            ),
            Some(adopted) => adopted.select(self, rest),
        }
    }

    /// Keys as their rows have them; each once, in their order. What cannot be
    /// in a text column is in no row.
    pub(super) fn keys<'k>(&self, keys: impl Iterator<Item = &'k str>) -> Vec<String> {
        let mut stored: Vec<_> = match self.adopted {
            None => keys
                .map(|key| StoredKey::new(key).key.into_owned())
                .collect(),
            Some(_) => keys
                .filter(|key| !key.contains('\0'))
                .map(str::to_owned)
                .collect(),
        };
        stored.sort_unstable();
        stored.dedup();
        stored
    }

    /// The text of a value, as it is [selected](Self::select).
    pub(super) fn text<'v>(&self, selected: &'v [u8]) -> &'v [u8] {
        match self.adopted {
            None => ValueType::text(selected),
            // Another program's is selected as text.
            Some(_) => selected,
        }
    }

    /// The key's column, comparing by bytes whatever the table says.
    pub(super) fn key_by_bytes(&self) -> String {
        match self.adopted {
            None => format!("t.{}", self.key),
            Some(_) => format!("t.{}::text COLLATE \"C\"", self.key),
        }
    }
}

impl Adopted {
    /// The rows with what is known of them, if their value is still the one
    /// that it is known of.
    pub(super) fn select(&self, table: &Table, rest: &str) -> String {
        let Table { key, value, .. } = table;
        let time = self.time.read(&table.updated_at);
        let digest = digest(table);
        format!(
            "SELECT t.{key}::text, NULL::text, t.{value}::text, {time},
                CASE WHEN c.digest = {digest} THEN c.revision END,
                CASE WHEN c.digest = {digest} THEN c.expires_at END,
                CASE WHEN c.digest = {digest} THEN c.schema END
             FROM {} {rest}",
            self.joined(table)
        )
    }

    pub(super) fn joined(&self, table: &Table) -> String {
        format!(
            "{} AS t LEFT JOIN {} AS c ON c.key = {}",
            table.name,
            self.companion,
            table.key_by_bytes()
        )
    }
}

/// Tells a value from every other one, as it stands in the table now.
pub(super) fn digest(table: &Table) -> String {
    format!(
        "coalesce(sha256(convert_to(t.{}::text, 'UTF8')), ''::bytea)",
        table.value
    )
}
