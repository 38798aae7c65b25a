//! Names of maps, and their encoding as names of files and tables.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, ErrorKind, Result};

/// The maximum length of a part of a name, in bytes.
const MAX_PART: usize = 255;

/// The name under which unreadable records of a map are copied: `stock/unreadable`.
pub(crate) const ASIDE: &str = "unreadable";

/// The name of the map in which the shards of a layer keep their common layout.
pub(crate) const SHARDED: &str = "sharded";

/// The name of a map within its provider: 1 to 255 bytes of UTF-8 without
/// control characters; `/` is reserved for [nested](Self::nested) names.
///
/// Two different names never share storage, even on file systems that ignore case
/// and in databases that truncate long identifiers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapName(Arc<str>);

impl MapName {
    /// Creates a name without a namespace.
    ///
    /// # Errors
    ///
    /// `Invalid` if the name is empty, is longer than 255 bytes, or contains a
    /// control character or a `/`.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        check_part(name)?;
        Ok(Self(name.into()))
    }

    /// Creates a name in the namespace of this name: `unreadable` nested in `stock`
    /// is `stock/unreadable`.
    ///
    /// # Errors
    ///
    /// `Invalid`, as for [`new`](Self::new).
    pub fn nested(&self, name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        check_part(name)?;
        Ok(Self(format!("{}/{name}", self.0).into()))
    }

    /// Parses a name, nested or not, as returned by [`as_str`](Self::as_str).
    ///
    /// # Errors
    ///
    /// `Invalid` if a part between two `/` is not a valid name.
    pub fn parse(path: impl AsRef<str>) -> Result<Self> {
        let path = path.as_ref();
        path.split('/').try_for_each(check_part)?;
        Ok(Self(path.into()))
    }

    /// The [map of the layout](SHARDED).
    pub(crate) fn of_layout() -> Self {
        Self(SHARDED.into())
    }

    /// This name in a namespace.
    pub(crate) fn within(&self, namespace: &Self) -> Self {
        Self(format!("{namespace}/{self}").into())
    }

    /// This name without that namespace; `None` if it is not in it.
    pub(crate) fn without(&self, namespace: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(&*namespace.0)?.strip_prefix('/')?;
        Some(Self(rest.into()))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Encodes the name for use as a file or table name.
    ///
    /// ASCII lower-case letters, digits, `-` and `_` are kept. Every other byte
    /// becomes `%` and two hexadecimal digits. A result longer than `max_bytes` is
    /// truncated and ends with `%%` and a 128-bit digest of the whole name.
    /// `max_bytes` must be at least 40.
    ///
    /// Different names have different results, even if case is ignored, unless
    /// their digests collide. A store that keeps truncated names should store the
    /// whole name as well and compare it.
    pub fn encoded(&self, max_bytes: usize) -> String {
        let whole = self.0.bytes().fold(String::new(), |mut out, byte| {
            push_encoded(&mut out, byte);
            out
        });
        if whole.len() <= max_bytes {
            return whole;
        }
        let digest = format!("%%{:032x}", xxh3_128(self.0.as_bytes()));
        let mut end = max_bytes.saturating_sub(digest.len());
        // Never truncate within an escape.
        while end > 0 && whole[..end].bytes().rev().take(2).any(|b| b == b'%') {
            end -= 1;
        }
        whole[..end].to_owned() + &digest
    }

    /// Decodes the result of [`encoded`](Self::encoded). `None` if it was truncated
    /// or is not an encoded name.
    pub fn decoded(encoded: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(encoded.len());
        let mut rest = encoded.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            if first == b'%' {
                let hex = std::str::from_utf8(after.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(hex, 16).ok()?);
                rest = &after[2..];
            } else {
                bytes.push(first);
                rest = after;
            }
        }
        let name = Self::parse(String::from_utf8(bytes).ok()?).ok()?;
        (name.encoded(usize::MAX) == encoded).then_some(name)
    }
}

fn check_part(part: &str) -> Result<()> {
    let problem = if part.is_empty() {
        "it is empty"
    } else if part.len() > MAX_PART {
        "it is longer than 255 bytes"
    } else if part.chars().any(char::is_control) {
        "it contains a control character"
    } else if part.contains('/') {
        "it contains a `/`, which is reserved for namespaces"
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "{part:?} cannot name a map: {problem}; use 1 to 255 bytes of UTF-8 without control characters or `/`"
        ),
    ))
}

const HEX: [char; 16] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
];

fn push_encoded(out: &mut String, byte: u8) {
    match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
        _ => {
            out.push('%');
            out.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
        }
    }
}

impl AsRef<str> for MapName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for MapName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MapName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(name).map_err(de::Error::custom)
    }
}

impl TryFrom<&str> for MapName {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<String> for MapName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<&String> for MapName {
    type Error = Error;

    fn try_from(name: &String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<&MapName> for MapName {
    fn from(name: &MapName) -> Self {
        name.clone()
    }
}
