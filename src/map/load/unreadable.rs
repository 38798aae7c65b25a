//! Unreadable records: listed, and never destroyed.

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

/// The unreadable records of a load into a map that does not allow any.
///
/// The load continues to the end: to decide between repairing the records and
/// opening the map without them, a person needs their number.
#[derive(Default)]
pub(crate) struct UnreadableKeys {
    keys: Vec<Arc<str>>,
    first: Option<Error>,
    pub(crate) is_open: bool,
}

impl UnreadableKeys {
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
    /// `Corrupt` if there are any; `of` is the number of loaded records.
    pub(crate) fn check<V>(self, of: u64, map: &MapName) -> Result<()> {
        let Some(first) = self.first else {
            return Ok(());
        };
        let message = format!(
            "{} of {of} stored records cannot be decoded as `{}`; nothing was overwritten: repair \
             them, or the step that leads to the current schema version (`migrate`), or open the \
             map without them (`allow_unreadable`), which lists and keeps them",
            self.keys.len(),
            std::any::type_name::<V>(),
        );
        Err(Error::new(ErrorKind::Corrupt, message)
            .on_map(map)
            .on_keys(self.keys)
            .with_source(first))
    }
}

/// The change that copies a record aside. Its key includes the revision, so
/// unreadable values that one key had at different times do not overwrite each
/// other.
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

    /// Removes the records that the store no longer has from the list.
    pub(crate) fn list_only(&self, unreadable: &HashSet<Arc<str>>) {
        let mut listed = self.unreadable.lock();
        listed.retain(|key, _| unreadable.contains(key));
    }

    /// Whether this record, at this revision, is already listed.
    pub(crate) fn is_listed(&self, record: &Record) -> bool {
        let unreadable = self.unreadable.lock();
        let listed = unreadable.get(&record.key);
        listed.is_some_and(|listed| listed.record.revision == record.revision)
    }

    /// The unreadable records that a clear or these changes would overwrite.
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
