//! Unacknowledged writes: changes that this map may have made without knowing the
//! outcome.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    batch::{Change, Op, Skipped},
    codec,
    record::{Payload, Record, Revision},
};

/// Changes that may be in the store at a revision that the map does not know: those
/// of batches whose outcome stayed unknown, and those that a provider accepted
/// ahead of the store.
///
/// Without this record, a map would take its own earlier write for that of another
/// process.
pub(crate) struct Unacknowledged {
    sent: HashMap<Arc<str>, Vec<Op>>,
    /// Whether any change of this map is committed with a condition.
    asks_conditions: bool,
    detects_conflicts: bool,
}

impl Unacknowledged {
    pub(crate) fn new(asks_conditions: bool, detects_conflicts: bool) -> Self {
        Self {
            sent: HashMap::new(),
            asks_conditions,
            detects_conflicts,
        }
    }

    /// An empty record for the same map.
    pub(crate) fn none(&self) -> Self {
        Self::new(self.asks_conditions, self.detects_conflicts)
    }

    /// Records changes that may have been applied.
    pub(crate) fn add(&mut self, changes: &[Change]) {
        if !self.asks_conditions {
            return;
        }
        for change in changes {
            let sent = self.sent.entry(change.key.clone()).or_default();
            sent.push(change.op.clone());
        }
    }

    /// Records that these changes were committed, except for the skipped ones.
    /// The store no longer holds earlier changes of their keys.
    pub(crate) fn settle(
        &mut self,
        changes: &[Change],
        skipped: &[Skipped],
        revision: Option<Revision>,
    ) {
        if !self.sent.is_empty() {
            let left = skipped
                .iter()
                .filter_map(|s| self.sent.remove_entry(&s.key));
            let left: Vec<_> = left.collect();
            for change in changes {
                self.sent.remove(&change.key);
            }
            self.sent.extend(left);
        }
        // Accepted ahead of the store, at an unknown revision.
        if revision.is_none() && self.detects_conflicts {
            self.add(changes);
        }
    }

    /// Takes the unacknowledged changes of this key, whose stored state is now
    /// known.
    pub(crate) fn take(&mut self, key: &str) -> Vec<Op> {
        self.sent.remove(key).unwrap_or_default()
    }
}

/// Whether one of these changes produces the found record.
pub(crate) fn made<V>(sent: &[Op], found: Option<&Record>) -> bool
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

/// A store may keep the text of a value in another form, so values are compared by
/// meaning.
fn is_same<V: Serialize + DeserializeOwned>(sent: &Payload, stored: &Payload) -> bool {
    let stored = codec::decode::<V>(stored).and_then(|value| codec::encode(&value));
    let Ok(stored) = stored else {
        return false;
    };
    codec::same(&stored, sent)
}

fn millis(at: Option<SystemTime>) -> Option<u128> {
    let since = at?.duration_since(SystemTime::UNIX_EPOCH);
    Some(since.unwrap_or_default().as_millis())
}
