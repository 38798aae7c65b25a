//! Commits: a batch is admitted, its conditions are checked, and it is appended to the
//! journal.

use super::{files::Folder, format::frame, store::Store, values::LazyRecord};
use crate::{
    batch::{Batch, Committed, MapBatch},
    error::{Error, Result},
    incarnation::Incarnation,
    journal::FRAME_HEADER,
    provider::ledger::{self, Admission},
};

impl Store {
    /// Applies a batch, or returns the first answer if it was applied already.
    pub(super) fn commit(
        &mut self,
        folder: &Folder,
        batch: &Batch,
        part: &MapBatch,
    ) -> Result<Committed> {
        self.keep_up(folder)?;
        let last = |writer| self.writers.sequence_of(writer);
        let answer = match ledger::admit(batch, self.incarnation, last) {
            Admission::Apply => self.apply(folder, batch, part)?,
            Admission::Repeat => self.writers.answer_to(batch.id.writer),
            Admission::Refuse(error) => return Err(error.on_map(&self.map)),
            Admission::Renew(new, error) => {
                self.renew(folder, new)?;
                return Err(error.on_map(&self.map));
            }
        };
        Ok(answer.with_incarnation(self.incarnation))
    }

    /// Sets the incarnation of the map durably, before any caller learns of it. After a
    /// failure and a crash it may still be set, but no map knows it.
    fn renew(&mut self, folder: &Folder, incarnation: Incarnation) -> Result<()> {
        let journal = self.writable_journal(folder)?;
        let appended = self.append(folder, journal, &frame::renewal(incarnation));
        // The renewal may be in the file, but nothing of the batch is.
        appended.map_err(Error::nothing_applied)?;
        self.incarnation = Some(incarnation);
        Ok(())
    }

    fn apply(&mut self, folder: &Folder, batch: &Batch, part: &MapBatch) -> Result<Committed> {
        let skipped = ledger::check_conditions(batch, |_, key| Ok(self.unread(folder, key)))?;
        let revision = batch.revision_after(self.last);
        let answer = Committed::at(revision).with_skipped(skipped);
        let is_stored = |key: &str| !part.clear && self.index.contains_key(key);
        let payload = frame::applied(batch, part, &answer, is_stored)?;
        let mut journal = self.writable_journal(folder)?;
        if self.incarnation.is_none() {
            // The meta file was written by an earlier version of this crate.
            self.renew(folder, Incarnation::random())?;
            journal = self.writable_journal(folder)?;
        }
        let start = journal.bytes + FRAME_HEADER as u64;
        self.append(folder, journal, &payload)?;
        // The index shares its keys with the batch, and so with the map.
        let mut changes = part.changes.iter();
        let owned = |key: &str| {
            let change = changes.find(|change| *change.key == *key);
            change.map_or_else(|| key.into(), |change| change.key.clone())
        };
        self.replay(&payload, start, owned)?;
        self.tombstones.prune(batch.at, folder.keep_tombstones);
        folder.writers.lock().insert(batch.id.writer);
        Ok(answer)
    }

    fn unread<'a>(&'a self, folder: &'a Folder, key: &str) -> Option<LazyRecord<'a>> {
        let entry = self.index.get_key_value(key);
        entry.map(|entry| LazyRecord::new(self.values(folder), entry))
    }
}
