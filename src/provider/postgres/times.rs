//! The times of writes, in tables of other programs.

/// How a table keeps the time of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// As `timestamptz`.
    Zoned,
    /// As `timestamp`, in UTC.
    Plain,
    /// Milliseconds since 1970.
    Millis,
    /// Not at all.
    Missing,
}

/// The first and the last time that a `timestamptz` takes.
const FIRST_MILLIS: i64 = -210_866_803_200_000;
const LAST_MILLIS: i64 = 9_224_318_015_999_000;

impl Time {
    /// Of a column of that type.
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

    /// The SQL that reads it as a `timestamptz`.
    pub(super) fn read(self, column: &str) -> String {
        match self {
            Self::Zoned => format!("t.{column}"),
            Self::Plain => format!("t.{column} AT TIME ZONE 'UTC'"),
            // Beyond all times, as in a finer unit, it is none: an error would
            // keep the whole table from being loaded.
            Self::Millis => format!(
                "to_timestamp(CASE WHEN t.{column} BETWEEN {FIRST_MILLIS} AND {LAST_MILLIS}
                    THEN t.{column} / 1000.0 END)"
            ),
            Self::Missing => "NULL::timestamptz".to_owned(),
        }
    }

    /// The SQL that writes a `timestamptz`.
    pub(super) fn written(self, moment: &str) -> String {
        match self {
            Self::Zoned | Self::Missing => moment.to_owned(),
            Self::Plain => format!("{moment}::timestamptz AT TIME ZONE 'UTC'"),
            Self::Millis => format!("(extract(epoch FROM {moment}::timestamptz) * 1000)::bigint"),
        }
    }
}
