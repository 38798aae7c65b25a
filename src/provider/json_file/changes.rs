//! Loads of changes: records and tombstones, in the order of their revisions.

use super::{files::Folder, store::Store};
use crate::{error::Result, load::Load, record::Revision};

impl Store {
    /// The changes after a revision, with tombstones. `last` is the last commit.
    ///
    /// All of it is read at once, because a reader must not see a record without the
    /// tombstones of earlier commits.
    pub(super) fn changes(
        &self,
        folder: &Folder,
        after: Revision,
        limit: usize,
        last: Revision,
    ) -> Result<Load<'static>> {
        let (end, last) = self.end(after, limit, last);
        let is_wanted = |revision| after < revision && revision <= end;
        let entries = self.index.iter();
        let entries: Vec<_> = entries.filter(|(_, e)| is_wanted(e.revision)).collect();
        let records = self.records(folder, &entries)?;
        Ok(self.tombstones.changes(records.iter(), after, limit, last))
    }

    /// The commit up to which values have to be read, and the last commit of the answer,
    /// unless tombstones reach the limit earlier. A load in small steps then does not read
    /// all values at each step.
    fn end(&self, after: Revision, limit: usize, last: Revision) -> (Revision, Revision) {
        if after >= self.last || limit == 0 {
            return (after, last);
        }
        let revisions = self.index.values().map(|entry| entry.revision);
        let mut revisions: Vec<_> = revisions.filter(|revision| *revision > after).collect();
        if limit >= revisions.len() {
            return (last, last);
        }
        let (_, end, later) = revisions.select_nth_unstable(limit - 1);
        let is_last = later.iter().all(|revision| *revision == *end);
        (*end, if is_last { last } else { *end })
    }
}
