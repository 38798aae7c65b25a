//! How tables of other programs keep the time of a write.

use rusqlite::{Connection, types::Value};

/// How a table keeps the time of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// Milliseconds since 1970.
    Millis,
    /// `YYYY-MM-DD HH:MM:SS.SSS`, in UTC, as SQLite's own functions have it.
    Text,
    /// Not at all.
    Missing,
}

impl Time {
    /// The SQL that reads it, whatever form a row has it in.
    pub(super) fn in_millis(self, column: &str) -> String {
        match self {
            Self::Missing => "NULL".to_owned(),
            Self::Millis | Self::Text => format!(
                "CASE typeof(t.{column})
                    WHEN 'integer' THEN t.{column}
                    WHEN 'text' THEN CAST(round(unixepoch(t.{column}, 'subsec') * 1000) AS INTEGER)
                 END"
            ),
        }
    }

    /// What is written.
    pub(super) fn written(self, connection: &Connection, at: i64) -> rusqlite::Result<Value> {
        if self == Self::Millis {
            return Ok(Value::Integer(at));
        }
        connection
            .prepare_cached("SELECT strftime('%Y-%m-%d %H:%M:%f', ?1 / 1000.0, 'unixepoch')")?
            .query_row([at], |row| row.get(0))
    }
}
