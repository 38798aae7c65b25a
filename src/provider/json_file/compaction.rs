//! Compaction: the journal of a map is merged into its snapshot.

use std::{path::Path, sync::Arc};

use super::{
    files::Folder,
    frame,
    index::{Entry, Page, Place, Source},
    io::{OpenFile, Replacement},
    meta::{self, Head, Row},
    snapshot::Layout,
    store::{Store, remove_journal},
};
use crate::{
    codec::json::fingerprint,
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
};

/// A snapshot that is safe on the disk and not in its place yet.
struct NewSnapshot<'a> {
    file: Replacement<'a>,
    digest: u128,
    /// Where the values are in it, and their fingerprints, in the order of the
    /// index.
    values: Vec<(Place, u64)>,
}

impl Store {
    /// Merges the journal into the snapshot, if there is a journal.
    ///
    /// Five steps, each safe on the disk before the next:
    ///
    /// 1. The new snapshot is written under another name. A crash leaves it
    ///    behind, and nothing refers to it.
    /// 2. The journal announces the digest of the new snapshot. A crash leaves
    ///    the old snapshot with its journal; the announcement means nothing.
    /// 3. The new snapshot takes its place. A crash leaves it with the
    ///    journal, which knows it; read on top of it, it comes to the same.
    /// 4. The meta file takes its place; it names the journal as compacted. A
    ///    crash leaves a journal that is known to be of no use.
    /// 5. The journal is removed.
    ///
    /// If step 3 came before step 2, a new snapshot could not be told from one
    /// that was edited; if step 4 came before step 3, the revisions of the new
    /// values would be read with the old ones; if step 5 came before step 4,
    /// they would be lost.
    pub(super) fn compact(&mut self, folder: &Folder) -> Result<()> {
        let result = self.compact_journal(folder);
        // If that failed, the next try comes when as much was written again.
        let bytes = self.journal.map_or(0, |journal| journal.bytes);
        self.compact_at = bytes.saturating_add(folder.max_journal);
        result.map_err(|error| error.on_map(&self.map))
    }

    fn compact_journal(&mut self, folder: &Folder) -> Result<()> {
        if self.journal.is_none() {
            return Ok(());
        }
        self.check_files(folder)?;
        let journal = self.writable_journal(folder)?;
        let path = self.files.snapshot.clone();
        let new = self.write_snapshot(folder, &path)?;
        self.append(folder, journal, &frame::announcement(new.digest))?;

        // From here on, what is known of the files may not be so if a step
        // fails. Then it is read again.
        self.is_stale = true;
        new.file.replace()?;
        folder.sync()?;
        let fingerprints: Vec<_> = new.values.iter().map(|(_, print)| *print).collect();
        let rest = (Some(new.digest), journal.id);
        let checksum = self.put_meta(folder, rest, self.incarnation, &fingerprints)?;
        let looks = OpenFile::open(&*folder.disk, &path)?.looks()?;
        self.snapshot = Some((new.digest, looks));
        self.meta = Some(checksum);
        self.loaded = self.last;
        self.journal = None;
        for (entry, (place, _)) in self.index.values_mut().zip(new.values) {
            entry.place = place;
        }
        self.is_stale = false;

        // If only this fails, the next journal takes the place of the old one.
        remove_journal(folder, &self.files)
    }

    fn write_snapshot<'a>(&self, folder: &Folder, path: &'a Path) -> Result<NewSnapshot<'a>> {
        let mut file = Replacement::create(&*folder.disk, path, path)?;
        let mut layout = Layout::new();
        let mut values = Vec::with_capacity(self.index.len());
        let mut entries = self.index.iter().peekable();
        while entries.peek().is_some() {
            let page = Page::next(&mut entries);
            let mut out = Vec::new();
            self.lay_out(folder, &page.entries, &mut layout, &mut out, &mut values)?;
            file.write(&out)?;
        }
        let mut end = Vec::new();
        let digest = layout.end(&mut end);
        file.write(&end)?;
        file.sync()?;
        Ok(NewSnapshot {
            file,
            digest,
            values,
        })
    }

    fn lay_out(
        &self,
        folder: &Folder,
        page: &[(&Arc<str>, &Entry)],
        layout: &mut Layout,
        out: &mut Vec<u8>,
        values: &mut Vec<(Place, u64)>,
    ) -> Result<()> {
        let places: Vec<_> = page.iter().map(|(_, entry)| entry.place).collect();
        let texts = self.values(folder).read(&places)?;
        for ((key, entry), text) in page.iter().zip(texts) {
            let text = std::str::from_utf8(&text).map_err(|error| self.not_text(key, error))?;
            let (offset, bytes) = layout.entry(out, key, text);
            // No longer than it was, which was counted in 32 bits.
            let bytes = u32::try_from(bytes).unwrap_or(entry.place.bytes);
            let (encoding, schema) = (entry.place.encoding(), entry.place.schema);
            let place = Place::new(Source::Snapshot, offset, bytes).with_form(encoding, schema);
            values.push((place, fingerprint(text)));
        }
        Ok(())
    }

    fn not_text(&self, key: &Arc<str>, error: std::str::Utf8Error) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            "a stored value is not text; nothing was overwritten",
        )
        .on_map(&self.map)
        .on_keys([key.clone()])
        .with_source(error)
    }

    /// Puts a meta file in its place, and returns its checksum. It goes with this
    /// snapshot, whose values have these fingerprints, and names this journal as
    /// compacted; 0 for none.
    pub(super) fn put_meta(
        &self,
        folder: &Folder,
        (snapshot, journal): (Option<u128>, u64),
        incarnation: Option<Incarnation>,
        fingerprints: &[u64],
    ) -> Result<u128> {
        let head = Head {
            incarnation,
            snapshot,
            compacted: journal,
            ..Head::new(&self.map, self.last, self.recent_writers(folder))
        };
        let path = &self.files.meta;
        let rows = self.rows(fingerprints);
        let like = &self.files.snapshot;
        let (file, checksum) =
            meta::write(&*folder.disk, path, like, &head, rows, &self.tombstones)?;
        file.replace()?;
        folder.sync()?;
        Ok(checksum)
    }

    /// The rows of the meta file, with these fingerprints in the order of the
    /// index.
    fn rows<'a>(&'a self, fingerprints: &'a [u64]) -> impl Iterator<Item = (&'a str, Row)> {
        let entries = self.index.iter().zip(fingerprints);
        entries.map(|((key, entry), fingerprint)| {
            let row = Row {
                revision: entry.revision,
                updated: entry.updated,
                expires: entry.expires,
                fingerprint: *fingerprint,
                schema: entry.place.schema,
                encoding: entry.place.encoding(),
            };
            (&**key, row)
        })
    }
}
