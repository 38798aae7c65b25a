//! Records: stored entries as a provider returns them, with payload and revision.

use std::{fmt, num::ParseIntError, str::FromStr, sync::Arc, time::SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod deletion;
mod form;
mod timestamp;

pub use deletion::{Cause, Deletion};
pub use timestamp::Timestamp;

/// The number that a provider assigns to a commit. Revisions of a map only grow.
///
/// An entry has the revision of the commit that last wrote it. Only revisions of the
/// same map can be compared, and the distance between two of them has no meaning.
///
/// The text of a revision is its number, so it can be used as an `ETag`:
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
    /// The revision before the first commit: smaller than that of every commit.
    pub const ZERO: Self = Self(0);

    /// Creates the revision with this number.
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

/// How the bytes of a [`Payload`] are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// UTF-8 text of one JSON value.
    #[default]
    Json,
    /// Any bytes. The store keeps them unchanged.
    Bytes,
}

/// A stored value: its bytes, their encoding, and the schema version.
///
/// A clone is O(1): it shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Payload {
    /// The encoded value.
    pub bytes: Bytes,
    /// The encoding of the bytes.
    pub encoding: Encoding,
    /// The schema version that the value was written in; 0 if the program does not use
    /// schema versions.
    pub schema: u32,
}

impl Payload {
    /// Creates a payload of JSON text, with schema version 0.
    pub fn json(text: impl Into<Bytes>) -> Self {
        Self {
            bytes: text.into(),
            encoding: Encoding::Json,
            schema: 0,
        }
    }

    /// Creates a payload of any bytes, with schema version 0.
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

    /// Sets the schema version.
    #[must_use]
    pub fn with_schema(mut self, schema: u32) -> Self {
        self.schema = schema;
        self
    }
}

/// A stored entry, or the tombstone of a deleted one.
///
/// It implements serde's traits, so a store can keep it as text. Times are serialized as
/// whole milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "form::RecordForm", into = "form::RecordForm")]
#[non_exhaustive]
pub struct Record {
    /// The key.
    pub key: Arc<str>,
    /// The stored value. `None` marks a tombstone, which only a load of
    /// [changes](crate::Wanted::Changed) returns.
    pub value: Option<Payload>,
    /// The revision of the commit that last wrote the entry.
    pub revision: Revision,
    /// When the entry expires; `None` for never.
    pub expires_at: Option<SystemTime>,
    /// When the value was written, by the writer's clock; `None` if unknown. Moving the
    /// expiry does not change it. For a tombstone, when the entry was deleted.
    pub updated_at: Option<SystemTime>,
    /// The cause and the writer of the deletion; for a tombstone only.
    pub deletion: Option<Deletion>,
}

impl Record {
    /// Creates a record that never expires and whose time of writing is unknown.
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

    /// Creates a tombstone of an entry that was deleted by that commit.
    pub fn deleted(key: impl Into<Arc<str>>, revision: Revision, deletion: Deletion) -> Self {
        Self {
            deletion: Some(deletion),
            ..Self::new(key, None, revision)
        }
    }

    /// Sets when the entry expires.
    #[must_use]
    pub fn with_expires_at(mut self, at: Option<SystemTime>) -> Self {
        self.expires_at = at;
        self
    }

    /// Sets when the value was written.
    #[must_use]
    pub fn with_updated_at(mut self, at: Option<SystemTime>) -> Self {
        self.updated_at = at;
        self
    }
}
