//! Opening a map: from its files at rest, or from what a crash left of them.

use std::path::Path;

use super::{
    damage,
    files::{Files, Folder},
    frame::Frame,
    indexing,
    io::read_whole,
    journal::{self, Found, Header},
    meta::{Meta, check_map, other_format},
    snapshot::Snapshot,
    store::{Journal, Store, put_journal, remove_journal},
    torn,
    trailer::{self, Mark},
};
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
    provider::ledger::Tombstones,
    record::Revision,
    trace::PROVIDER,
};

/// What was read of a map.
struct AtRest {
    files: Files,
    snapshot: Option<Snapshot>,
    meta: Option<Meta>,
    /// The map is open.
    is_in_use: bool,
}

/// A journal that was found, and is needed.
struct LeftOver<'a> {
    header: Header,
    payloads: Vec<(usize, &'a [u8])>,
    /// The whole frames, without a torn one at the end.
    whole: &'a [u8],
    torn: &'a [u8],
}

impl Store {
    /// Opens a map.
    pub(super) fn open(folder: &Folder, map: &MapName) -> Result<Self> {
        Self::read(folder, map, false)
    }

    /// Opens a map once more whose files were replaced while it was open. An edit
    /// by hand is not taken over then, nor a file of another program.
    pub(super) fn reopen(folder: &Folder, map: &MapName) -> Result<Self> {
        Self::read(folder, map, true)
    }

    fn read(folder: &Folder, map: &MapName, is_in_use: bool) -> Result<Self> {
        let files = folder.files(map)?;
        folder.check_in_place()?;
        let journal = read_whole(&*folder.disk, &files.journal)?;
        if journal.is_some() || is_in_use {
            // What is seen in the folder may not be safe there: a fold that
            // failed, or a process that was killed, may have left renames that
            // nobody synced. What follows builds on them, and an open map is told
            // of the incarnation.
            folder.sync()?;
        }
        let rest = AtRest {
            snapshot: Snapshot::read(&*folder.disk, &files.snapshot)?,
            meta: Meta::read(&*folder.disk, &files.meta, map)?,
            files,
            is_in_use,
        };
        match journal {
            Some((bytes, _)) => rest.open_under(folder, map, &bytes),
            None => rest.open(folder, map),
        }
    }
}

impl AtRest {
    /// Opens a map that has no journal.
    fn open(self, folder: &Folder, map: &MapName) -> Result<Store> {
        if self.snapshot.is_none() && self.meta.is_none() {
            check_not_literal(folder, map, &self.files)?;
        }
        self.check_complete().map_err(|error| error.on_map(map))?;
        self.check_not_edited().map_err(|error| error.on_map(map))?;
        self.remove_mark(folder)?;
        let digest = self.snapshot.as_ref().map(|snapshot| snapshot.digest);
        let written = self.snapshot.as_ref().map(Snapshot::written);
        let loaded = match &self.meta {
            Some(meta) if meta.head.snapshot == digest => meta.head.counter,
            // Above all that was given, and the same as often as the file is
            // opened before it is written down, below.
            Some(meta) => {
                let next = Revision::new(meta.head.counter.get().saturating_add(1));
                written.unwrap_or_default().max(next)
            }
            None => written.unwrap_or_default(),
        };
        let is_edited = self
            .meta
            .as_ref()
            .is_some_and(|meta| meta.head.snapshot != digest);
        let (mut store, fingerprints) = self.into_store(folder, map, loaded)?;
        if is_edited {
            tell_edited(&store);
            // Keys that were removed by hand left no tombstones.
            store.tombstones.forget(loaded);
            // The revisions that were given to what someone else wrote. If there is
            // a crash before the file is in its place, they are given again.
            let rest = (digest, 0);
            let checksum = store.put_meta(folder, rest, store.incarnation, &fingerprints)?;
            store.meta = Some(checksum);
        }
        Ok(store)
    }

    /// That no file is missing that the meta file knows of.
    ///
    /// A snapshot that is missing is no edit by hand: an empty map in the place
    /// of a full one is what nobody wants to find out late, and the first compaction
    /// would forget the expiries of the entries for good. To say that it is meant,
    /// the meta file is removed too.
    fn check_complete(&self) -> Result<()> {
        let Some(meta) = &self.meta else {
            return Ok(());
        };
        if meta.trailer.mark == Mark::InUse {
            return Err(damage::no_journal(&self.files));
        }
        if meta.head.snapshot.is_some() && self.snapshot.is_none() {
            return Err(damage::no_snapshot(&self.files));
        }
        Ok(())
    }

    /// That the snapshot of an open map is one that a compaction left: one of another
    /// time, or none. What someone else wrote is taken over only while the map is
    /// closed, and nothing was written by then.
    fn check_not_edited(&self) -> Result<()> {
        let digest = self.snapshot.as_ref().map(|snapshot| snapshot.digest);
        let written = self.meta.as_ref().and_then(|meta| meta.head.snapshot);
        if self.is_in_use && digest != written {
            return Err(damage::edited(&self.files.snapshot));
        }
        Ok(())
    }

    /// A mark goes before its journal does: the other way around, a crash would
    /// leave one that tells of a journal that is missing.
    fn remove_mark(&self, folder: &Folder) -> Result<()> {
        match &self.meta {
            Some(meta) if meta.trailer.mark != Mark::Absent => {
                let Files {
                    meta: path,
                    snapshot,
                    ..
                } = &self.files;
                trailer::remove_mark(&*folder.disk, path, snapshot, meta.trailer.end)?;
                folder.sync()
            }
            _ => Ok(()),
        }
    }

    /// Opens a map that has a journal.
    fn open_under(mut self, folder: &Folder, map: &MapName, bytes: &[u8]) -> Result<Store> {
        let path = &self.files.journal;
        let journal = match Found::in_bytes(bytes) {
            Found::Damaged { at } => return Err(damage::damaged(&self.files, at).on_map(map)),
            Found::OtherFormat { format } => {
                return Err(other_format(path, format, journal::FORMAT).on_map(map));
            }
            Found::Journal {
                header,
                payloads,
                end,
            } => LeftOver {
                header,
                payloads,
                whole: &bytes[..end],
                torn: &bytes[end..],
            },
        };
        if !journal.torn.is_empty() && self.is_in_use {
            return Err(damage::edited(&self.files.journal).on_map(map));
        }
        if !journal.torn.is_empty() {
            torn::set_aside(folder, &self.files, journal.torn)?;
        }
        if !self.has_all_of(&journal) {
            return self.replay(folder, map, &journal);
        }
        if journal.payloads.is_empty() {
            self.remove_mark(folder)?;
            if let Some(meta) = &mut self.meta {
                meta.trailer.mark = Mark::Absent;
            }
        }
        self.check_complete().map_err(|error| error.on_map(map))?;
        remove_journal(folder, &self.files)?;
        self.open(folder, map)
    }

    /// Whether nothing would be lost with the journal: it says nothing, or it
    /// was compacted. The meta file takes its place as the last step of that,
    /// when the snapshot is safe, and then the journal is not written to any
    /// more: only its removal is missing. So an edit by hand since then is
    /// one of a file at rest.
    fn has_all_of(&self, journal: &LeftOver<'_>) -> bool {
        let compacted = self.meta.as_ref().map_or(0, |meta| meta.head.compacted);
        compacted == journal.header.id || journal.payloads.is_empty()
    }

    /// Reads the journal on top of the snapshot it was written for, or of the
    /// one that a compaction made of both.
    ///
    /// The second is the same as the first: what the journal changes comes to
    /// what is there already, and what it does not change was taken over as it
    /// was, so that the meta file of the first fits it too.
    fn replay(self, folder: &Folder, map: &MapName, journal: &LeftOver<'_>) -> Result<Store> {
        check_map(&self.files.journal, &journal.header.map, map)?;
        self.check_unchanged(journal, map)?;
        let (mut store, _) = self.into_store(folder, map, journal.header.loaded)?;
        for (start, payload) in &journal.payloads {
            store.replay(payload, *start as u64)?;
        }
        // A journal is written to only by who started it. Of one that was
        // found, nobody knows whether the last frames are on the disk or only
        // in the system's memory; a sync that failed in another process may
        // even have made the system believe they are. In a new file they are
        // safe before anyone is told of them.
        //
        // The header is of this format, and as long as one of an earlier format.
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

    fn check_unchanged(&self, journal: &LeftOver<'_>, map: &MapName) -> Result<()> {
        let digest = self.snapshot.as_ref().map(|snapshot| snapshot.digest);
        let is_announced = |payload: &[u8]| match Frame::read(payload) {
            Some(Frame::Announced(announced)) => digest == Some(announced),
            _ => false,
        };
        let mut payloads = journal.payloads.iter();
        let fits = digest == journal.header.snapshot || payloads.any(|(_, p)| is_announced(p));
        if !fits {
            let error = if self.is_in_use {
                damage::edited(&self.files.snapshot)
            } else {
                damage::changed(&self.files.snapshot, &self.files.journal)
            };
            return Err(error.on_map(map));
        }
        if self.meta.as_ref().map(|meta| meta.trailer.checksum) != journal.header.meta {
            return Err(damage::changed(&self.files.meta, &self.files.journal).on_map(map));
        }
        Ok(())
    }

    fn into_store(
        self,
        folder: &Folder,
        map: &MapName,
        loaded: Revision,
    ) -> Result<(Store, Vec<u64>)> {
        let path = &self.files.snapshot;
        let (index, fingerprints) = match &self.snapshot {
            Some(snapshot) => indexing::index(path, map, snapshot, self.meta.as_ref(), loaded)?,
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
        let tombstones = tombstones.unwrap_or_else(|| {
            // Nothing is known of earlier deletions.
            let mut tombstones = Tombstones::new();
            tombstones.forget(last);
            tombstones
        });
        let snapshot = self.snapshot.as_ref();
        let store = Store {
            map: map.clone(),
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
            compact_at: folder.max_journal,
        };
        Ok((store, fingerprints))
    }
}

fn tell_edited(store: &Store) {
    tracing::info!(
        target: PROVIDER,
        map = store.map.as_str(),
        file = %store.files.snapshot.display(),
        entries = store.index.len(),
        "another program wrote to the file while the map was closed; changed keys have new revisions",
    );
}

fn leads_nowhere(link: &Path) -> Error {
    let message = format!(
        "{} is a symbolic link to a file that does not exist; create or mount that file, or remove \
         the link to start anew",
        link.display()
    );
    Error::new(ErrorKind::Unusable, message)
}

/// That a new map does not stand in for the file of another program that its
/// user means.
fn check_not_literal(folder: &Folder, map: &MapName, files: &Files) -> Result<()> {
    let Some(literal) = folder.literal_file(map)? else {
        return Ok(());
    };
    let expected = files.snapshot.file_name().unwrap_or_default();
    let expected = expected.to_string_lossy();
    if literal == expected {
        return Err(leads_nowhere(&files.snapshot).on_map(map));
    }
    let message = format!(
        "this map is kept in {expected}, which is not there, but {literal} is: to use that file, \
         open the folder with JsonFile::builder(..).file({:?}, {literal:?}); to start anew, move \
         it away",
        map.as_str()
    );
    Err(Error::new(ErrorKind::Invalid, message).on_map(map))
}
