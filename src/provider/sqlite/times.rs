//! Times in SQLite: milliseconds since 1970, and the formats of adopted tables.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, types::Value};

use crate::provider::sql::numbers;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Milliseconds since 1970, rounded down: an entry expires early, not late.
pub(super) fn to_millis(time: SystemTime) -> i64 {
    numbers::from_time(time, SystemTime::UNIX_EPOCH, MILLISECOND)
}

/// The time `ago` before now, in milliseconds since 1970.
pub(super) fn millis_ago(ago: Duration) -> i64 {
    let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    to_millis(SystemTime::now()).saturating_sub(ago)
}

pub(super) fn from_millis(millis: i64) -> SystemTime {
    numbers::to_time(millis, SystemTime::UNIX_EPOCH, MILLISECOND)
}

/// The format in which an adopted table stores the time of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// Milliseconds since 1970.
    Millis,
    /// `YYYY-MM-DD HH:MM:SS.SSS`, in UTC, the format of SQLite's own functions.
    Text,
    /// The table has no such column.
    Missing,
}

impl Time {
    /// The SQL that reads the column as milliseconds, in either format.
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

    /// The value to write for a time; `None` if the table stores none.
    pub(super) fn written(
        self,
        connection: &Connection,
        millis: i64,
    ) -> rusqlite::Result<Option<Value>> {
        match self {
            Self::Missing => Ok(None),
            Self::Millis => Ok(Some(Value::Integer(millis))),
            Self::Text => connection
                .prepare_cached("SELECT strftime('%Y-%m-%d %H:%M:%f', ?1 / 1000.0, 'unixepoch')")?
                .query_row([millis], |row| row.get(0))
                .map(Some),
        }
    }
}
