//! What stands in the columns, in Postgres's binary form.

use std::{
    error::Error as StdError,
    time::{Duration, SystemTime},
};

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::{
    error::Result,
    provider::sql::numbers::{from_time, to_time},
};

type Failure = Box<dyn StdError + Sync + Send>;

/// The type of the values' column in the tables that are made here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueType {
    /// `jsonb`: the database can look into the values, and index them.
    ///
    /// It does not keep white space, nor the order of the fields, and takes no
    /// `\u0000` in a string: a value with one is refused. So is one with a number of
    /// more than 131,072 digits before the point, or 16,383 after it, zeros included.
    /// -0.0 comes back as 0.0.
    #[default]
    Jsonb,
    /// `json`: the database can look into the values; they are kept letter by
    /// letter, and take any character.
    Json,
    /// `text`: the JSON text, unchecked.
    Text,
}

impl ValueType {
    /// The SQL type, and its name in the catalog.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Jsonb => "jsonb",
            Self::Json => "json",
            Self::Text => "text",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        let all = [Self::Jsonb, Self::Json, Self::Text];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// The SQL that makes such a value of its text.
    ///
    /// Values are sent as text: so the server parses one value after the other as
    /// it writes the rows, instead of all of them before it begins.
    pub(super) fn of_text(self, text: &str) -> String {
        format!("{text}::{}", self.name())
    }

    /// The text of a value, whichever type its column has been altered to.
    pub(super) fn text(stored: &[u8]) -> &[u8] {
        // The binary form of a `jsonb` begins with the number of a version, 1 so
        // far, which no JSON text begins with.
        stored.strip_prefix(&[1]).unwrap_or(stored)
    }
}

/// The text of a value, sent as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueText<'a>(pub(super) &'a [u8]);

impl ToSql for ValueText<'_> {
    fn to_sql(&self, _kind: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.put_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TEXT
    }

    to_sql_checked!();
}

/// A time as Postgres counts it: microseconds since the year 2000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) i64);

const MICROSECOND: Duration = Duration::from_micros(1);

/// The year 2000, counted from 1970.
const YEAR_2000: Duration = Duration::from_secs(10_957 * 24 * 60 * 60);

/// The first and the last time that a `timestamptz` takes; further ones are cut.
const FIRST: i64 = -211_813_488_000_000_000;
const LAST: i64 = 9_223_371_331_199_999_999;

impl Moment {
    /// Rounded down: an entry expires early, not late.
    pub(super) fn new(time: SystemTime) -> Self {
        Self(from_time(time, zero(), MICROSECOND).clamp(FIRST, LAST))
    }

    pub(super) fn time(self) -> SystemTime {
        to_time(self.0, zero(), MICROSECOND)
    }
}

fn zero() -> SystemTime {
    SystemTime::UNIX_EPOCH + YEAR_2000
}

impl ToSql for Moment {
    fn to_sql(&self, _kind: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.put_i64(self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

/// A column as it comes, whatever its type.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_kind: &Type, raw: &'a [u8]) -> Result<Self, Failure> {
        Ok(Self(raw))
    }

    fn accepts(_kind: &Type) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_down_to_the_microsecond_and_cut_at_the_ends() {
        let epoch = SystemTime::UNIX_EPOCH;
        for (nanos, back) in [(0, 0), (1_999, 1_000), (1_000_000_123, 1_000_000_000)] {
            let moment = Moment::new(epoch + Duration::from_nanos(nanos));
            assert_eq!(moment.time(), epoch + Duration::from_nanos(back));
        }
        let before = Moment::new(epoch - Duration::from_nanos(1));
        assert_eq!(before.time(), epoch - Duration::from_micros(1));
        let far = epoch + Duration::from_secs(u64::from(u32::MAX) * 1_000_000);
        assert_eq!(Moment::new(far).0, LAST);
    }
}
