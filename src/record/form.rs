//! The serde forms of payloads and records, for stores that keep them as text.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

use super::{Deletion, Encoding, Payload, Record, Revision, Timestamp};

#[derive(Serialize, Deserialize)]
#[serde(rename = "Payload")]
struct PayloadForm<'a> {
    #[serde(flatten)]
    content: Content<'a>,
    #[serde(default)]
    schema: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Content<'a> {
    Json(Cow<'a, str>),
    Base64(Cow<'a, str>),
}

/// The JSON text as a string, or bytes as base64, and the schema version.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let content = match self.encoding {
            Encoding::Json => {
                let text = std::str::from_utf8(&self.bytes).map_err(S::Error::custom)?;
                Content::Json(text.into())
            }
            Encoding::Bytes => Content::Base64(STANDARD.encode(&self.bytes).into()),
        };
        let schema = self.schema;
        PayloadForm { content, schema }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let PayloadForm { content, schema } = PayloadForm::deserialize(deserializer)?;
        let payload = match content {
            Content::Json(text) => Self::json(text.into_owned()),
            Content::Base64(text) => {
                let bytes = STANDARD.decode(&*text).map_err(D::Error::custom)?;
                Self::binary(bytes)
            }
        };
        Ok(payload.with_schema(schema))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Record")]
pub(super) struct RecordForm {
    key: Arc<str>,
    value: Option<Payload>,
    revision: Revision,
    expires_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletion: Option<Deletion>,
}

impl From<Record> for RecordForm {
    fn from(record: Record) -> Self {
        Self {
            key: record.key,
            value: record.value,
            revision: record.revision,
            expires_at: record.expires_at.map(Timestamp::of),
            updated_at: record.updated_at.map(Timestamp::of),
            deletion: record.deletion,
        }
    }
}

impl From<RecordForm> for Record {
    fn from(form: RecordForm) -> Self {
        let time = |at: Option<Timestamp>| -> Option<SystemTime> { at?.time() };
        let record = Self::new(form.key, form.value, form.revision)
            .with_expires_at(time(form.expires_at))
            .with_updated_at(time(form.updated_at));
        Self {
            deletion: form.deletion,
            ..record
        }
    }
}
