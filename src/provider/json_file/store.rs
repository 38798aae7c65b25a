//! An open map: its index, its journal, and the writers that it remembers.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    files::{Files, Folder},
    index::{Entry, Index},
    values::Values,
};
use crate::{
    disk::file::Looks,
    error::Result,
    incarnation::Incarnation,
    name::MapName,
    provider::ledger::{Tombstones, Writers},
    record::{Record, Revision, Timestamp},
};

/// The maximum number of writers of earlier openings of the folder that are remembered.
const MAX_EARLIER: usize = 8;

/// For how long a writer of an earlier opening is remembered after its last batch.
const REMEMBERED: Duration = Duration::from_secs(72 * 60 * 60);

/// The approximate size of a tombstone in a meta file, in bytes.
const TOMBSTONE_BYTES: u64 = 128;

/// An open map. All of this can be read from its files again.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) map: MapName,
    pub(super) files: Files,
    pub(super) index: Index,
    pub(super) tombstones: Tombstones,
    pub(super) writers: Writers,
    /// `None` before the first commit. It is durable before a caller learns of it.
    pub(super) incarnation: Option<Incarnation>,
    /// The revision of the last commit.
    pub(super) last: Revision,
    /// The revision of entries that another program wrote into the snapshot.
    pub(super) loaded: Revision,
    /// The digest of the current snapshot, its size and its modification time.
    pub(super) snapshot: Option<(u128, Looks)>,
    /// The checksum of the current meta file.
    pub(super) meta: Option<u128>,
    pub(super) journal: Option<Journal>,
    /// Whether files are being replaced. If that fails, this store may differ from them
    /// and has to be read again.
    pub(super) is_stale: bool,
    /// The journal is not compacted before it has this size.
    pub(super) compact_at: u64,
}

/// The journal that batches are appended to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Journal {
    pub(super) id: u64,
    /// The size of the part that is known to be durable.
    pub(super) bytes: u64,
    pub(super) frames: u64,
    /// Whether a write or a sync failed. The content beyond `bytes` is unknown, and a
    /// later sync would prove nothing, so this file is not written to again.
    pub(super) is_broken: bool,
}

impl Store {
    /// The files that values are read from.
    pub(super) fn values<'a>(&'a self, folder: &'a Folder) -> Values<'a> {
        Values {
            disk: &*folder.disk,
            files: &self.files,
            snapshot: self.snapshot.map(|(_, looks)| looks),
            journal: None,
        }
    }

    /// The records of these entries.
    pub(super) fn records(
        &self,
        folder: &Folder,
        entries: &[(&Arc<str>, &Entry)],
    ) -> Result<Vec<Record>> {
        let places: Vec<_> = entries.iter().map(|(_, entry)| entry.place).collect();
        let texts = self.values(folder).read(&places)?;
        let records = entries.iter().zip(texts);
        let records = records.map(|((key, entry), text)| entry.record(key, text));
        let records: Result<Vec<_>> = records.collect();
        records.map_err(|error| error.on_map(&self.map))
    }

    /// Whether the journal is longer than the output of a compaction, so that
    /// compactions write no more than a small multiple of the committed bytes.
    pub(super) fn is_outgrown(&self) -> bool {
        let journal = self.journal.map_or(0, |journal| journal.bytes);
        let snapshot = self.snapshot.map_or(0, |(_, looks)| looks.size);
        let tombstones = self.tombstones.len() as u64 * TOMBSTONE_BYTES;
        journal >= self.compact_at.max(snapshot + tombstones)
    }

    /// The writers that may still send a batch, or repeat one.
    ///
    /// Those that wrote since the folder was opened may still be open. Those of earlier
    /// openings wrote under a lock that they no longer hold, so they have ended, except for
    /// one that reopened the folder between a batch and its repeat. So only the latest few
    /// of them are remembered, for some days.
    pub(super) fn recent_writers(&self, folder: &Folder) -> Writers {
        let of_now = folder.writers.lock();
        let oldest = SystemTime::now().checked_sub(REMEMBERED);
        let oldest = Timestamp::of(oldest.unwrap_or(SystemTime::UNIX_EPOCH));
        let earlier = self
            .writers
            .iter()
            .filter(|(writer, _)| !of_now.contains(writer));
        let mut earlier: Vec<_> = earlier.map(|(writer, last)| (last.at, writer)).collect();
        earlier.retain(|(at, _)| *at >= oldest);
        earlier.sort_unstable_by(|a, b| b.cmp(a));
        earlier.truncate(MAX_EARLIER);
        let mut recent = self.writers.clone();
        recent.retain(|writer, last| {
            of_now.contains(&writer) || earlier.contains(&(last.at, writer))
        });
        recent
    }
}
