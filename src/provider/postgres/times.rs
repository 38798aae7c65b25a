//! The time columns of adopted tables.

/// How a table stores the time of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// As `timestamptz`.
    Zoned,
    /// As `timestamp`, in UTC.
    Plain,
    /// Milliseconds since 1970.
    Millis,
    /// The table has no time column.
    Missing,
}

/// The range of a `timestamptz`.
const FIRST_MILLIS: i64 = -210_866_803_200_000;
const LAST_MILLIS: i64 = 9_224_318_015_999_000;

impl Time {
    /// The format for a column of that type.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let all = [Self::Zoned, Self::Plain, Self::Millis, Self::Missing];
        all.into_iter().find(|time| time.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zoned => "timestamptz",
            Self::Plain => "timestamp",
            Self::Millis => "int8",
            Self::Missing => "",
        }
    }

    /// The SQL that reads the column as a `timestamptz`.
    pub(super) fn read(self, column: &str) -> String {
        match self {
            Self::Zoned => format!("t.{column}"),
            Self::Plain => format!("t.{column} AT TIME ZONE 'UTC'"),
            // A number out of range, such as one in a finer unit, is read as no time: an
            // error would prevent the load of the whole table.
            Self::Millis => format!(
                "to_timestamp(CASE WHEN t.{column} BETWEEN {FIRST_MILLIS} AND {LAST_MILLIS}
                    THEN t.{column} / 1000.0 END)"
            ),
            Self::Missing => "NULL::timestamptz".to_owned(),
        }
    }

    /// The SQL that writes a `timestamptz` to the column.
    pub(super) fn written(self, moment: &str) -> String {
        match self {
            Self::Zoned | Self::Missing => moment.to_owned(),
            Self::Plain => format!("{moment}::timestamptz AT TIME ZONE 'UTC'"),
            Self::Millis => format!("(extract(epoch FROM {moment}::timestamptz) * 1000)::bigint"),
        }
    }
}
