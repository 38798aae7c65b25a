//! The serde forms of payloads and records, for stores that keep them as text.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};

use super::{Deletion, Payload, Record, Revision, Timestamp};

#[derive(Serialize, Deserialize)]
#[serde(rename = "Payload")]
struct PayloadForm<'a> {
    json: Cow<'a, str>,
    #[serde(default)]
    schema: u32,
}

/// The JSON text as a string, and the schema.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = std::str::from_utf8(&self.bytes).map_err(S::Error::custom)?;
        let (json, schema) = (json.into(), self.schema);
        PayloadForm { json, schema }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let PayloadForm { json, schema } = PayloadForm::deserialize(deserializer)?;
        Ok(Self::json(json.into_owned()).with_schema(schema))
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
