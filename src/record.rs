//! What comes up from a provider: records, their payloads and revisions.

use std::{fmt, num::ParseIntError, str::FromStr, sync::Arc, time::SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod deletion;
mod form;
mod timestamp;

pub use deletion::{Cause, Deletion};
pub use timestamp::Timestamp;

/// The number a provider gives each commit; it only grows.
///
/// An entry carries the revision of the commit that last wrote it. Revisions
/// of one map are comparable with each other and with nothing else; how far
/// apart two of them are means nothing.
///
/// As text it is its number, so it can travel as an `ETag` and come back:
///
/// ```
/// # fn main() -> Result<(), std::num::ParseIntError> {
/// use persistify::Revision;
///
/// let revision = Revision::new(7);
/// let tag = format!("\"{revision}\"");
/// assert_eq!(tag.trim_matches('"').parse::<Revision>()?, revision);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before the first commit: smaller than every revision a provider gives.
    pub const ZERO: Self = Self(0);

    /// The revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Revision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Revision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

/// How the bytes of a [`Payload`] are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// UTF-8 text of one JSON value.
    #[default]
    Json,
    /// Any bytes. A store keeps them unchanged.
    Bytes,
}

/// A value as it is stored: bytes, and what is needed to read them.
///
/// A clone shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Payload {
    /// The encoded value.
    pub bytes: Bytes,
    /// How to read the bytes.
    pub encoding: Encoding,
    /// The number of the shape the value was written in; 0 unless the
    /// program numbers its shapes.
    pub schema: u32,
}

impl Payload {
    /// The JSON text of a value, of shape 0.
    pub fn json(text: impl Into<Bytes>) -> Self {
        Self {
            bytes: text.into(),
            encoding: Encoding::Json,
            schema: 0,
        }
    }

    /// Any bytes, of shape 0.
    ///
    /// Only providers with the capability [`bytes`](crate::Capabilities::bytes) store
    /// them. A map reads and writes JSON; a record of bytes is unreadable to it.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            encoding: Encoding::Bytes,
            schema: 0,
        }
    }

    /// The same bytes, written in the shape with this number.
    #[must_use]
    pub fn with_schema(mut self, schema: u32) -> Self {
        self.schema = schema;
        self
    }
}

/// A stored entry as it comes up from a provider.
///
/// With serde, a store can keep it as text; times are then whole milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "form::RecordForm", into = "form::RecordForm")]
#[non_exhaustive]
pub struct Record {
    /// The key, as it was written.
    pub key: Arc<str>,
    /// The stored value; `None` says that the key was deleted, which only a
    /// load of [changes](crate::Wanted::Changed) reports.
    pub value: Option<Payload>,
    /// The commit that last wrote the entry.
    pub revision: Revision,
    /// When the entry is gone, if it ever is.
    pub expires_at: Option<SystemTime>,
    /// When the value was written, by the writer's clock; `None` where the
    /// store does not know. Moving an expiry does not change it. Of a tombstone,
    /// when the entry was deleted.
    pub updated_at: Option<SystemTime>,
    /// What is known of the deletion; of a tombstone only.
    pub deletion: Option<Deletion>,
}

impl Record {
    /// A record that never expires and whose time of writing is not known.
    pub fn new(key: impl Into<Arc<str>>, value: Option<Payload>, revision: Revision) -> Self {
        Self {
            key: key.into(),
            value,
            revision,
            expires_at: None,
            updated_at: None,
            deletion: None,
        }
    }

    /// A tombstone: the entry was deleted by that commit.
    pub fn deleted(key: impl Into<Arc<str>>, revision: Revision, deletion: Deletion) -> Self {
        Self {
            deletion: Some(deletion),
            ..Self::new(key, None, revision)
        }
    }

    /// The same record, gone from that time on.
    #[must_use]
    pub fn with_expires_at(mut self, at: Option<SystemTime>) -> Self {
        self.expires_at = at;
        self
    }

    /// The same record, written at that time.
    #[must_use]
    pub fn with_updated_at(mut self, at: Option<SystemTime>) -> Self {
        self.updated_at = at;
        self
    }
}
