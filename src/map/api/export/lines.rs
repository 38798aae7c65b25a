//! The format of an export: JSON Lines, a header and one line per entry.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::name::MapName;

const FORMAT: &str = "persistify";
const VERSION: u32 = 1;

/// The first line of an export.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Header<'a> {
    format: Cow<'a, str>,
    version: u32,
    map: Cow<'a, str>,
    /// The schema version of all values.
    pub(crate) schema: u32,
}

/// A line after the header: one entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line<'a> {
    #[serde(borrow)]
    pub(crate) key: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) value: &'a RawValue,
    /// In milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    /// The entry's own time to live, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_to_live: Option<u64>,
}

impl<'a> Header<'a> {
    pub(crate) fn new(map: &'a MapName, schema: u32) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            map: map.as_str().into(),
            schema,
        }
    }

    /// # Errors
    ///
    /// The problem with the line, as the end of a sentence.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, String> {
        // Some editors write a byte order mark before UTF-8 text.
        let text = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        let header: Self = serde_json::from_slice(text)
            .map_err(|cause| format!("is not the header of an export: {cause}"))?;
        if header.format != FORMAT {
            return Err(format!(
                "is the header of {:?}, not of an export",
                header.format
            ));
        }
        if header.version > VERSION {
            return Err(format!(
                "says that this is version {}, but this program knows only {VERSION}",
                header.version
            ));
        }
        Ok(header)
    }
}

impl<'a> Line<'a> {
    pub(crate) fn new(
        key: &'a str,
        value: &'a RawValue,
        ends: Option<SystemTime>,
        own: Option<Duration>,
    ) -> Self {
        Self {
            key: key.into(),
            value,
            expires_at: ends.map(millis),
            time_to_live: own.map(length),
        }
    }

    pub(crate) fn expires_at(&self) -> Option<SystemTime> {
        let since_1970 = Duration::from_millis(self.expires_at?);
        // Beyond the range of `SystemTime`, the entry does not expire.
        SystemTime::UNIX_EPOCH.checked_add(since_1970)
    }

    /// When an entry with its own time to live was written.
    pub(crate) fn written_at(&self) -> Option<SystemTime> {
        let own = Duration::from_millis(self.time_to_live?);
        self.expires_at()?.checked_sub(own)
    }
}

fn millis(at: SystemTime) -> u64 {
    let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH);
    length(since_1970.unwrap_or_default())
}

fn length(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

/// Serializes to one line. A value may contain line breaks between tokens; in valid
/// JSON a raw line break is never part of a string.
pub(crate) fn on_a_line(line: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    for byte in &mut text {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text.push(b'\n');
    Ok(text)
}
