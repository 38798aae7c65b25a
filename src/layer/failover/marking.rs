//! Marking what the standby lacks.

use super::mirror::Mirror;
use crate::batch::Batch;

/// Marks the maps of a commit when it ends, even if its future is dropped: it may have been
/// applied.
pub(super) struct Marking<'a> {
    pub(super) mirror: &'a Mirror,
    pub(super) batch: &'a Batch,
}

impl Drop for Marking<'_> {
    fn drop(&mut self) {
        let parts = self.batch.maps.iter();
        let changed = parts.filter(|part| part.clear || !part.changes.is_empty());
        let mut changed = changed.map(|part| part.map.clone()).peekable();
        if changed.peek().is_some() {
            self.mirror.mark(changed);
        }
    }
}
