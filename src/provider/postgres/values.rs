//! Values and times in the binary format of their columns.

use std::{
    error::Error as StdError,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::{
    error::Result,
    provider::sql::numbers::{from_time, to_time},
    record::{Encoding, Payload},
};

type Failure = Box<dyn StdError + Sync + Send>;

/// The type of the value column in the tables that the provider creates.
///
/// Each type takes JSON and [bytes](Encoding::Bytes). In a column of JSON or text,
/// bytes are a JSON string of their base64 form, and 2^32 is added to the row's
/// `schema`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueType {
    /// `jsonb`: the database can query and index the values.
    ///
    /// It preserves neither white space nor the order of fields, and -0.0 is read back as
    /// 0.0. A value is refused if a string contains `\u0000`, or if a number has more than
    /// 131,072 digits before the decimal point or 16,383 after it, zeros included.
    #[default]
    Jsonb,
    /// `json`: the database can query the values. Their text is preserved exactly, and may
    /// contain any character.
    Json,
    /// `text`: the exact JSON text. The database does not check it.
    Text,
    /// `bytea`: bytes as they are, a quarter smaller than base64. JSON is stored as its
    /// exact text in UTF-8; `convert_from(value, 'UTF8')` shows it.
    Bytea,
}

/// Added to the schema version, which has 32 bits, if the value is bytes.
const BYTES: i64 = 1 << 32;

/// The number in the column `schema`: the schema version of a value and its encoding.
pub(super) fn schema_column(payload: &Payload) -> i64 {
    match payload.encoding {
        Encoding::Json => payload.schema.into(),
        Encoding::Bytes => BYTES | i64::from(payload.schema),
    }
}

impl ValueType {
    /// The SQL type, and its name in the catalog.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Jsonb => "jsonb",
            Self::Json => "json",
            Self::Text => "text",
            Self::Bytea => "bytea",
        }
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        let all = [Self::Jsonb, Self::Json, Self::Text, Self::Bytea];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// The type of the array in which values are sent.
    ///
    /// JSON is sent as text, so that the server parses each value when it writes the row,
    /// instead of all values first.
    pub(super) fn sent(self) -> Type {
        match self {
            Self::Jsonb | Self::Json | Self::Text => Type::TEXT_ARRAY,
            Self::Bytea => Type::BYTEA_ARRAY,
        }
    }

    /// The SQL that converts a sent element into a value.
    pub(super) fn of_sent(self, sent: &str) -> String {
        format!("{sent}::{}", self.name())
    }

    /// The number of bytes that are sent for a value.
    pub(super) fn sent_len(self, payload: &Payload) -> usize {
        let len = payload.bytes.len();
        if self.is_base64(payload) {
            len.div_ceil(3) * 4 + 2
        } else {
            len
        }
    }

    fn is_base64(self, payload: &Payload) -> bool {
        payload.encoding == Encoding::Bytes && self != Self::Bytea
    }

    /// The value of a row with this number in the column `schema`; `None` if the number is
    /// invalid. `share` turns a part of the row into a buffer of its own.
    pub(super) fn payload(
        self,
        stored: &[u8],
        schema: i64,
        share: impl FnOnce(&[u8]) -> Bytes,
    ) -> Option<Payload> {
        let is_bytes = schema & BYTES != 0;
        let payload = match self {
            Self::Bytea if is_bytes => Payload::binary(share(stored)),
            _ => {
                let text = json_text(stored);
                // Without base64, another program has replaced the value by JSON.
                let bytes = is_bytes.then(|| from_base64(text)).flatten();
                bytes.map_or_else(|| Payload::json(share(text)), Payload::binary)
            }
        };
        let schema = u32::try_from(schema & !BYTES).ok()?;
        Some(payload.with_schema(schema))
    }
}

/// The text of a JSON value, even if the type of its column was altered.
fn json_text(stored: &[u8]) -> &[u8] {
    // The binary format of `jsonb` begins with a version number, 1 so far, which cannot
    // begin a JSON text.
    stored.strip_prefix(&[1]).unwrap_or(stored)
}

/// Decodes the base64 in a JSON string.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let base64 = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    STANDARD.decode(base64).ok()
}

/// A value, for a column of that type.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentValue<'a>(pub(super) ValueType, pub(super) &'a Payload);

impl ToSql for SentValue<'_> {
    fn to_sql(&self, _kind: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        let Self(values, payload) = *self;
        if values.is_base64(payload) {
            let text = STANDARD.encode(&payload.bytes);
            out.put_u8(b'"');
            out.put_slice(text.as_bytes());
            out.put_u8(b'"');
        } else {
            out.put_slice(&payload.bytes);
        }
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        [Type::TEXT, Type::BYTEA].contains(kind)
    }

    to_sql_checked!();
}

/// A time in the unit of Postgres: microseconds since the year 2000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) i64);

const MICROSECOND: Duration = Duration::from_micros(1);

/// The year 2000, counted from 1970.
const YEAR_2000: Duration = Duration::from_secs(10_957 * 24 * 60 * 60);

/// The range of a `timestamptz`; times beyond it are clamped.
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

/// The raw bytes of a column of any type.
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
