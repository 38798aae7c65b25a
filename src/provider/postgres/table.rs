//! The table of a map, and its SQL.

use super::{keys::StoredKey, times::Time, values::ValueType};
use crate::{
    name::MapName,
    provider::sql::{
        columns::{Columns, quoted},
        companion::Companion,
    },
};

/// The table of a map. All names are quoted, and qualified with their schema.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) map: MapName,
    pub(super) name: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) updated_at: String,
    /// The type of the value column.
    pub(super) values: ValueType,
    pub(super) adopted: Option<Adopted>,
}

/// The companion of an adopted table, and the format of its times.
#[derive(Clone, Debug)]
pub(super) struct Adopted {
    pub(super) companion: Companion,
    pub(super) time: Time,
}

impl Table {
    /// A table; an adopted one has a companion and its own format of times.
    pub(super) fn new(
        map: &MapName,
        name: String,
        columns: &Columns,
        values: ValueType,
        adopted: Option<(String, Time)>,
    ) -> Self {
        let mut table = Self {
            map: map.clone(),
            name,
            key: quoted(&columns.key),
            value: quoted(&columns.value),
            updated_at: quoted(&columns.updated_at),
            values,
            adopted: None,
        };
        table.adopted = adopted.map(|(companion, time)| Adopted {
            companion: table.companion(companion),
            time,
        });
        table
    }

    fn companion(&self, name: String) -> Companion {
        let text = format!("convert_to(t.{}::text, 'UTF8')", self.value);
        Companion {
            name,
            table: self.name.clone(),
            key: format!("t.{}::text", self.key),
            key_by_bytes: format!("t.{}::text COLLATE \"C\"", self.key),
            digest: format!("coalesce(sha256({text}), ''::bytea)"),
        }
    }

    // The key is a primary key, so that the table can be replicated. The index of the
    // revisions is made with the first load of changes.
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

    /// The query for the columns that [`Reading`](super::rows::Reading) reads;
    /// `rest` follows the tables.
    pub(super) fn select(&self, rest: &str) -> String {
        let Self {
            name,
            key,
            value,
            updated_at,
            ..
        } = self;
        match &self.adopted {
            None => format!(
                "SELECT t.{key}, t.long_key, t.{value}, t.{updated_at}, t.revision, t.expires_at,
                    t.schema, NULL::uuid
                 FROM {name} AS t {rest}"
            ),
            Some(Adopted { companion, time }) => format!(
                "SELECT {}, NULL::text, t.{value}::text, {}, c.revision, c.expires_at, c.schema,
                    NULL::uuid
                 FROM {} {rest}",
                companion.key,
                time.read(updated_at),
                companion.joined()
            ),
        }
    }

    /// The keys as stored, each once and in order. Keys that a text column cannot store
    /// are left out.
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

    /// The key column, compared byte by byte regardless of its collation.
    pub(super) fn key_by_bytes(&self) -> String {
        match &self.adopted {
            None => format!("t.{}", self.key),
            Some(Adopted { companion, .. }) => companion.key_by_bytes.clone(),
        }
    }
}
