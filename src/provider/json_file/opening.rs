//! Opens a map from its files, at rest or as a crash left them.

use std::path::Path;

use super::{
    appending::{put_journal, remove_journal},
    files::{Files, Folder},
    format::{
        frame::Frame,
        journal::{self, Header, Parsed},
        meta::{Meta, check_map, other_format},
        snapshot::Snapshot,
        trailer::{self, Mark},
    },
    store::{Journal, Store},
};
use crate::{
    disk::file::read_whole,
    error::{Error, ErrorKind, Result},
    name::MapName,
    provider::ledger::Tombstones,
    record::Revision,
    trace::PROVIDER,
};

pub(super) mod damage;
mod indexing;
mod replaced;
mod torn;

/// The files of a map, as they were read.
struct Opening<'a> {
    folder: &'a Folder,
    map: &'a MapName,
    files: Files,
    snapshot: Option<Snapshot>,
    meta: Option<Meta>,
    /// Whether the map is open and its files were replaced.
    is_in_use: bool,
}

/// A journal that was found.
struct LeftOver<'a> {
    header: Header,
    payloads: Vec<(usize, &'a [u8])>,
    /// The header and the complete frames, without a torn one at the end.
    whole: &'a [u8],
    torn: &'a [u8],
}

impl Store {
    /// Opens a map.
    pub(super) fn open(folder: &Folder, map: &MapName) -> Result<Self> {
        Self::read(folder, map, false)
    }

    /// Reopens a map whose files were replaced while it was open. Unlike
    /// [`open`](Self::open), it refuses edits by hand and files of another program.
    pub(super) fn reopen(folder: &Folder, map: &MapName) -> Result<Self> {
        Self::read(folder, map, true)
    }

    fn read(folder: &Folder, map: &MapName, is_in_use: bool) -> Result<Self> {
        folder.check_in_place()?;
        let opened = Opening::read(folder, map, is_in_use)
            .and_then(|(found, journal)| found.open(journal.as_deref()));
        opened.map_err(|error| error.on_map(map))
    }
}

impl<'a> Opening<'a> {
    /// Reads the files, and the bytes of the journal if there is one.
    fn read(
        folder: &'a Folder,
        map: &'a MapName,
        is_in_use: bool,
    ) -> Result<(Self, Option<Vec<u8>>)> {
        let disk = &*folder.disk;
        let files = folder.files(map)?;
        let journal = read_whole(disk, &files.journal)?.map(|(bytes, _)| bytes);
        if journal.is_some() || is_in_use {
            // The content of the folder may not be durable: a failed compaction, or a process
            // that was killed, may have left renames that were not synced. The next steps
            // build on these renames, and an open map learns of the incarnation in the files.
            folder.sync()?;
        }
        let found = Self {
            snapshot: Snapshot::read(disk, &files.snapshot)?,
            meta: Meta::read(disk, &files.meta, map)?,
            folder,
            map,
            files,
            is_in_use,
        };
        Ok((found, journal))
    }

    fn open(mut self, journal: Option<&[u8]>) -> Result<Store> {
        let Some(bytes) = journal else {
            return self.open_at_rest(false);
        };
        let journal = self.parse(bytes)?;
        if !journal.torn.is_empty() {
            if self.is_in_use {
                return Err(damage::edited(&self.files.journal));
            }
            torn::set_aside(self.folder, &self.files, journal.torn)?;
        }
        if !self.is_obsolete(&journal) {
            return self.replay(&journal);
        }
        if let Some(meta) = self.meta.as_mut().filter(|_| journal.payloads.is_empty()) {
            meta.trailer.mark = meta.trailer.mark.without_frames();
        }
        self.open_at_rest(true)
    }

    fn parse<'b>(&self, bytes: &'b [u8]) -> Result<LeftOver<'b>> {
        match Parsed::in_bytes(bytes) {
            Parsed::Damaged { at } => Err(damage::damaged(&self.files, at)),
            Parsed::OtherFormat { format } => {
                Err(other_format(&self.files.journal, format, journal::FORMAT))
            }
            Parsed::Journal {
                header,
                payloads,
                end,
            } => Ok(LeftOver {
                header,
                payloads,
                whole: &bytes[..end],
                torn: &bytes[end..],
            }),
        }
    }

    /// Whether the journal is obsolete: it has no frames, or it was compacted. A compaction
    /// replaces the meta file once the snapshot is durable; after that the journal is no
    /// longer written to, only removed. So a later edit by hand is an edit of a file at rest.
    fn is_obsolete(&self, journal: &LeftOver<'_>) -> bool {
        let compacted = self.meta.as_ref().map_or(0, |meta| meta.head.compacted);
        compacted == journal.header.id || journal.payloads.is_empty()
    }

    /// Opens the map from its snapshot and its meta file, and removes an obsolete journal.
    fn open_at_rest(self, has_journal: bool) -> Result<Store> {
        self.check_at_rest()?;
        // The mark is removed before the journal: in the other order, a crash would leave
        // a mark that refers to a missing journal.
        self.remove_mark()?;
        if has_journal {
            remove_journal(self.folder, &self.files)?;
        }
        let folder = self.folder;
        let digest = self.digest();
        let is_edited = self
            .meta
            .as_ref()
            .is_some_and(|meta| meta.head.snapshot != digest);
        let loaded = self.loaded(is_edited);
        let (mut store, fingerprints) = self.into_store(loaded)?;
        if is_edited {
            tell_edited(&store);
            // Keys that were removed by hand left no tombstones.
            store.tombstones.forget(loaded);
            // Stores the revisions of the edited values. If a crash comes first, they
            // get the same revisions again.
            let rest = (digest, 0);
            let checksum = store.put_meta(folder, rest, store.incarnation, &fingerprints)?;
            store.meta = Some(checksum);
        }
        Ok(store)
    }

    fn digest(&self) -> Option<u128> {
        self.snapshot.as_ref().map(|snapshot| snapshot.digest)
    }

    /// The revision of entries that the meta file does not describe.
    fn loaded(&self, is_edited: bool) -> Revision {
        let written = self.snapshot.as_ref().map(Snapshot::written);
        let written = written.unwrap_or_default();
        match &self.meta {
            None => written,
            Some(meta) if !is_edited => meta.head.counter,
            // Above all revisions of commits. Until this revision is stored, each open
            // of the file computes the same one.
            Some(meta) => {
                let next = meta.head.counter.get().saturating_add(1);
                written.max(Revision::new(next))
            }
        }
    }

    /// Checks that no file is missing, and that none was edited while the map was open.
    ///
    /// A missing snapshot does not count as an edit by hand: the user might notice too late
    /// that the map is empty, and the first compaction would lose the expiries of its entries
    /// for good. To start with an empty map on purpose, the meta file is removed too.
    ///
    /// The snapshot of an open map must have been written by a compaction, possibly an earlier
    /// one, or be missing. A file of another program is accepted only while the map is closed.
    fn check_at_rest(&self) -> Result<()> {
        let Some(meta) = &self.meta else {
            return match (&self.snapshot, self.is_in_use) {
                (Some(_), true) => Err(damage::edited(&self.files.snapshot)),
                (Some(_), false) => Ok(()),
                (None, _) => check_not_literal(self.folder, self.map, &self.files),
            };
        };
        if meta.trailer.mark == Mark::InUse {
            return Err(damage::no_journal(&self.files));
        }
        if meta.head.snapshot.is_some() && self.snapshot.is_none() {
            return Err(damage::no_snapshot(&self.files));
        }
        if self.is_in_use && self.digest() != meta.head.snapshot {
            return Err(damage::edited(&self.files.snapshot));
        }
        Ok(())
    }

    fn remove_mark(&self) -> Result<()> {
        match &self.meta {
            Some(meta) if meta.trailer.mark != Mark::Absent => {
                let (disk, files) = (&*self.folder.disk, &self.files);
                trailer::remove_mark(disk, &files.meta, &files.snapshot, meta.trailer.end)?;
                self.folder.sync()
            }
            _ => Ok(()),
        }
    }

    /// Replays the journal on the snapshot that it was written for, or on the one that a
    /// compaction created from both.
    ///
    /// Both give the same map: the second one already contains the changes of the journal, and
    /// everything else was copied unchanged, so the meta file of the first one describes it too.
    fn replay(self, journal: &LeftOver<'_>) -> Result<Store> {
        check_map(&self.files.journal, &journal.header.map, self.map)?;
        self.check_unchanged(journal)?;
        let folder = self.folder;
        let (mut store, _) = self.into_store(journal.header.loaded)?;
        for (start, payload) in &journal.payloads {
            store.replay(payload, *start as u64, |key| key.into())?;
        }
        // A journal is written to only by the store that created the file. For a file that
        // was found, it is unknown whether the last frames are on the disk or only in the
        // memory of the system; after a failed sync in another process, the system may even
        // consider them written. In a new file they are durable before a caller learns of
        // them. Its header is of the current format, and as long as one of an earlier format.
        let mut whole = journal.header.to_bytes();
        whole.extend(&journal.whole[whole.len()..]);
        put_journal(folder, &store.files, &whole)?;
        store.journal = Some(Journal {
            id: journal.header.id,
            bytes: whole.len() as u64,
            frames: journal.payloads.len() as u64,
            is_broken: false,
        });
        Ok(store)
    }

    fn check_unchanged(&self, journal: &LeftOver<'_>) -> Result<()> {
        let digest = self.digest();
        let is_announced = |payload: &[u8]| match Frame::read(payload) {
            Some(Frame::Announced(announced)) => digest == Some(announced),
            _ => false,
        };
        let mut payloads = journal.payloads.iter();
        let fits = digest == journal.header.snapshot || payloads.any(|(_, p)| is_announced(p));
        let files = &self.files;
        if !fits && self.is_in_use {
            return Err(damage::edited(&files.snapshot));
        }
        if !fits {
            return Err(damage::changed(&files.snapshot, &files.journal));
        }
        if self.meta.as_ref().map(|meta| meta.trailer.checksum) != journal.header.meta {
            return Err(damage::changed(&files.meta, &files.journal));
        }
        Ok(())
    }

    /// The store and, if the meta file was not written for the snapshot, the fingerprints
    /// of the values.
    fn into_store(self, loaded: Revision) -> Result<(Store, Vec<u64>)> {
        let (index, fingerprints) = match &self.snapshot {
            Some(snapshot) => {
                indexing::index(&self.files.snapshot, snapshot, self.meta.as_ref(), loaded)?
            }
            None => Default::default(),
        };
        let checksum = self.meta.as_ref().map(|meta| meta.trailer.checksum);
        let (counter, incarnation, writers, tombstones) = match self.meta {
            Some(Meta {
                head, tombstones, ..
            }) => (head.counter, head.incarnation, head.writers, tombstones),
            None => Default::default(),
        };
        let last = counter.max(loaded);
        let tombstones = tombstones.unwrap_or_else(|| unknown_deletions(last));
        let snapshot = self.snapshot.as_ref();
        let store = Store {
            map: self.map.clone(),
            files: self.files,
            index,
            tombstones,
            writers,
            incarnation,
            last,
            loaded,
            snapshot: snapshot.map(|snapshot| (snapshot.digest, snapshot.looks)),
            meta: checksum,
            journal: None,
            is_stale: false,
            compact_at: self.folder.max_journal,
        };
        Ok((store, fingerprints))
    }
}

/// No tombstones, because the deletions up to that commit are unknown.
fn unknown_deletions(last: Revision) -> Tombstones {
    let mut tombstones = Tombstones::new();
    tombstones.forget(last);
    tombstones
}

fn tell_edited(store: &Store) {
    tracing::info!(
        target: PROVIDER,
        map = store.map.as_str(),
        file = %store.files.snapshot.display(),
        entries = store.index.len(),
        "the file was edited while the map was closed; changed keys have new revisions",
    );
}

fn leads_nowhere(link: &Path) -> Error {
    let message = format!(
        "{} is a symbolic link to a file that does not exist; create or mount that file, or remove \
         the link to start with an empty map",
        link.display()
    );
    Error::new(ErrorKind::Unusable, message)
}

/// Checks that a new map does not hide a file of another program that the user meant.
fn check_not_literal(folder: &Folder, map: &MapName, files: &Files) -> Result<()> {
    let Some(literal) = folder.literal_file(map)? else {
        return Ok(());
    };
    let expected = files.snapshot.file_name().unwrap_or_default();
    let expected = expected.to_string_lossy();
    if literal == expected {
        return Err(leads_nowhere(&files.snapshot));
    }
    let message = format!(
        "this map is stored in {expected}, which is missing, but there is {literal}: to use that \
         file, open the folder with JsonFile::builder(..).file({:?}, {literal:?}); to start with an \
         empty map, move it away",
        map.as_str()
    );
    Err(Error::new(ErrorKind::Invalid, message))
}
