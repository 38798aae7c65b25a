//! Stored records that do not decode: listed, and never destroyed.

use std::{collections::HashSet, sync::Arc};

use crate::{
    batch::Change,
    error::{Error, ErrorKind, Result},
    event::UnreadableRecord,
    map::shared::Shared,
    name::MapName,
    record::{Payload, Record},
    trace::LOAD,
};

/// Where unreadable records are set aside: a map of this name, nested in the
/// map's own.
pub(crate) const ASIDE: &str = "unreadable";

/// The records that a load could not read, where the map does not allow any.
///
/// The load goes on to its end all the same: a person who has to mend them, or
/// to decide to open the map without them, needs to know how many there are.
#[derive(Default)]
pub(crate) struct Unread {
    keys: Vec<Arc<str>>,
    first: Option<Error>,
    pub(crate) is_open: bool,
}

impl Unread {
    pub(crate) fn in_open_map() -> Self {
        let is_open = true;
        Self {
            is_open,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, key: Arc<str>, error: Error) {
        self.keys.push(key);
        self.first.get_or_insert(error);
    }

    /// # Errors
    ///
    /// `Corrupt` if there are any among so many records.
    pub(crate) fn check<V>(self, of: u64, map: &MapName) -> Result<()> {
        let Some(first) = self.first else {
            return Ok(());
        };
        let message = format!(
            "{} of {of} stored records cannot be read as `{}`; nothing was overwritten: mend \
             them, or the step that leads to their current schema (`migrate`), or open the map \
             without them (`allow_unreadable`), which lists and keeps them",
            self.keys.len(),
            std::any::type_name::<V>(),
        );
        Err(Error::new(ErrorKind::Corrupt, message)
            .on_map(map)
            .on_keys(self.keys)
            .with_source(first))
    }
}

/// The change that sets a record aside. Its key tells two unreadable values
/// apart that the same key had at different times.
pub(crate) fn copy_of(record: &Record) -> Change {
    let key = format!("{}:{}", record.revision, record.key);
    let payload = record.value.clone();
    Change::put(key, payload.unwrap_or_else(|| Payload::json("null")), None)
}

impl Shared {
    pub(crate) fn list_unreadable(&self, record: Record, error: Error) {
        tracing::warn!(target: LOAD, map = %self.name, error = %error.logged(), "a stored record is unreadable; it is kept");
        tracing::trace!(target: LOAD, map = %self.name, key = %record.key, ?error, "this record is unreadable");
        let key = record.key.clone();
        let listed = UnreadableRecord::new(record, error);
        self.unreadable.lock().insert(key, listed);
    }

    /// Of what was listed before, the store has only these any more.
    pub(crate) fn list_only(&self, unreadable: &HashSet<Arc<str>>) {
        let mut listed = self.unreadable.lock();
        listed.retain(|key, _| unreadable.contains(key));
    }

    /// Whether this very record is listed already.
    pub(crate) fn is_listed(&self, record: &Record) -> bool {
        let unreadable = self.unreadable.lock();
        let listed = unreadable.get(&record.key);
        listed.is_some_and(|listed| listed.record.revision == record.revision)
    }

    /// The unreadable records that a clear, or these changes, would overwrite.
    pub(crate) fn unreadable_under(&self, clears: bool, changes: &[Change]) -> Vec<Record> {
        let unreadable = self.unreadable.lock();
        let under = |key: &Arc<str>| unreadable.get(key);
        let listed: Vec<_> = if unreadable.is_empty() {
            Vec::new()
        } else if clears {
            unreadable.values().collect()
        } else {
            let changes = changes.iter();
            changes.filter_map(|change| under(&change.key)).collect()
        };
        let waiting = listed.into_iter().filter(|listed| !listed.set_aside);
        waiting.map(|listed| listed.record.clone()).collect()
    }

    /// The unreadable records at these keys.
    pub(crate) fn unreadable_at(&self, keys: &[Arc<str>]) -> Vec<Record> {
        let unreadable = self.unreadable.lock();
        let listed = keys.iter().filter_map(|key| unreadable.get(key));
        let waiting = listed.filter(|listed| !listed.set_aside);
        waiting.map(|listed| listed.record.clone()).collect()
    }

    pub(crate) fn was_set_aside(&self, records: &[Record]) {
        let mut unreadable = self.unreadable.lock();
        for record in records {
            if let Some(listed) = unreadable.get_mut(&record.key) {
                listed.set_aside = true;
            }
        }
    }
}
