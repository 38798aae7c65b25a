//! Applies the frames of a journal to a store.

use std::sync::Arc;

use super::{
    format::frame::{Applied, Effect, Frame, Put},
    index::{Entry, Place, Source, Stamp},
    store::Store,
};
use crate::{
    disk::fault::corrupt,
    error::{Error, Result},
    record::{Cause, Deletion, Record, Revision},
};

impl Put<'_> {
    fn entry(&self, revision: Revision, updated: Stamp, offset: u64) -> Entry {
        // Texts whose length takes more than 32 bits were refused.
        let bytes = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        let place = Place::new(Source::Journal, offset, bytes);
        Entry {
            revision,
            expires: self.expires,
            updated,
            place: place.with_form(self.encoding, self.schema),
        }
    }
}

impl Store {
    /// Applies a frame. `start` is the offset of its payload in the journal.
    ///
    /// Commits and the replay of a journal run this code, so both have the same result.
    /// `owned` returns the key of a new entry; it is called in the order of the changes.
    pub(super) fn replay(
        &mut self,
        payload: &[u8],
        start: u64,
        owned: impl FnMut(&str) -> Arc<str>,
    ) -> Result<()> {
        match Frame::read(payload) {
            Some(Frame::Applied(applied)) => {
                // The texts are slices of the payload.
                let offset =
                    |text: &[u8]| start + (text.as_ptr().addr() - payload.as_ptr().addr()) as u64;
                self.replay_batch(applied, offset, owned);
            }
            Some(Frame::Announced(_)) => {}
            Some(Frame::Renewed(incarnation)) => self.incarnation = Some(incarnation),
            None => return Err(self.senseless(start)),
        }
        Ok(())
    }

    fn replay_batch(
        &mut self,
        applied: Applied<'_>,
        offset: impl Fn(&[u8]) -> u64,
        mut owned: impl FnMut(&str) -> Arc<str>,
    ) {
        let revision = applied.revision();
        if applied.clear {
            self.index.clear();
            self.tombstones.clear(revision);
        }
        for change in &applied.changes {
            match change.effect {
                Effect::Put(put) => {
                    let at = put.written.unwrap_or(applied.at);
                    let entry = put.entry(revision, at, offset(put.text));
                    self.put(change.key, entry, &mut owned);
                }
                Effect::Touch { expires } => {
                    if let Some(stored) = self.index.get_mut(change.key) {
                        stored.revision = revision;
                        stored.expires = expires;
                    }
                }
                Effect::Delete(cause) => self.delete(change.key, cause, &applied),
            }
        }
        self.last = self.last.max(revision);
        let (id, at) = (applied.id, applied.committed_at);
        self.writers.remember(id, at, applied.answer);
    }

    fn put(&mut self, key: &str, entry: Entry, owned: &mut impl FnMut(&str) -> Arc<str>) {
        self.tombstones.put(key);
        match self.index.get_mut(key) {
            Some(stored) => *stored = entry,
            None => _ = self.index.insert(owned(key), entry),
        }
    }

    fn delete(&mut self, key: &str, cause: Cause, applied: &Applied<'_>) {
        self.index.remove(key);
        let deletion = Deletion::new(cause, applied.id.writer);
        let tombstone = Record::deleted(key, applied.revision(), deletion);
        let tombstone = tombstone.with_updated_at(applied.at.time());
        self.tombstones.delete(tombstone);
    }

    /// The error for a frame, or a journal, that this code did not write.
    pub(super) fn senseless(&self, offset: u64) -> Error {
        let problem = format!("the content at byte {offset} was not written by this program");
        corrupt(&self.files.journal, &problem, "restore a copy of it").on_map(&self.map)
    }
}
