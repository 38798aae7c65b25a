//! What this map may have written without knowing of it.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    batch::{Change, Op, Skipped},
    codec,
    record::{Payload, Record},
};

/// The changes that may be in the store, of which revision is not known: those
/// of batches whose fate never became known, and those that a provider accepted
/// ahead of the store.
///
/// Without them a map would take its own earlier write for another's.
#[derive(Default)]
pub(super) struct Doubts(HashMap<Arc<str>, Vec<Op>>);

impl Doubts {
    /// These changes may have landed.
    pub(super) fn add(&mut self, changes: &[Change]) {
        for change in changes {
            let sent = self.0.entry(change.key.clone()).or_default();
            sent.push(change.op.clone());
        }
    }

    /// These changes were committed, but for those left out: what was sent of
    /// their keys before is not what is stored any more.
    pub(super) fn settle(&mut self, changes: &[Change], skipped: &[Skipped]) {
        if self.0.is_empty() {
            return;
        }
        let left = skipped.iter().filter_map(|s| self.0.remove_entry(&s.key));
        let left: Vec<_> = left.collect();
        for change in changes {
            self.0.remove(&change.key);
        }
        self.0.extend(left);
    }

    /// What was sent of this key, which is no longer in doubt.
    pub(super) fn take(&mut self, key: &str) -> Vec<Op> {
        self.0.remove(key).unwrap_or_default()
    }
}

/// Whether one of these changes makes an entry what was found.
pub(super) fn made<V>(sent: &[Op], found: Option<&Record>) -> bool
where
    V: Serialize + DeserializeOwned,
{
    sent.iter().any(|op| match (op, found) {
        (Op::Delete, found) => found.is_none(),
        (Op::Put { payload, .. }, Some(found)) => {
            let stored = found.value.as_ref();
            stored.is_some_and(|stored| is_same::<V>(payload, stored))
        }
        (Op::Touch { expires_at }, Some(found)) => {
            expires_at.is_some() && millis(*expires_at) == millis(found.expires_at)
        }
        (Op::Put { .. } | Op::Touch { .. }, None) => false,
    })
}

/// A store may keep the text of a value in another form: compared is what it
/// means to this map.
fn is_same<V: Serialize + DeserializeOwned>(sent: &Payload, stored: &Payload) -> bool {
    let stored = codec::decode::<V>(stored).and_then(|value| codec::encode(&value));
    let Ok(stored) = stored else {
        return false;
    };
    // Raw text may be nested more deeply than a tree of it can be made.
    if stored.bytes == sent.bytes {
        return true;
    }
    let json = |payload: &Payload| serde_json::from_slice::<serde_json::Value>(&payload.bytes).ok();
    let stored = json(&stored);
    stored.is_some() && stored == json(sent)
}

fn millis(at: Option<SystemTime>) -> Option<u128> {
    let since = at?.duration_since(SystemTime::UNIX_EPOCH);
    Some(since.unwrap_or_default().as_millis())
}
