//! Compaction: merges the journal of a map into its snapshot.

use std::{iter, path::Path, sync::Arc};

use super::{
    appending::remove_journal,
    files::Folder,
    format::{
        frame,
        meta::{self, Head, Row},
        pairs::Pairs,
    },
    in_order::in_order,
    index::{Entry, Page, Place, Source},
    store::{Journal, Store},
    values::Values,
};
use crate::{
    codec::json::{fingerprint, layout::put_quoted},
    disk::file::{OpenFile, Replacement},
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
};

/// A snapshot that is durable but has not replaced the old one.
struct NewSnapshot<'a> {
    file: Replacement<'a>,
    /// The places of the values, and their fingerprints, in the order of the index.
    values: Vec<(Place, u64)>,
}

/// A part of a new snapshot.
struct Rendered {
    text: Vec<u8>,
    /// The places of the values in this text, and their fingerprints.
    values: Vec<(Place, u64)>,
}

impl Store {
    /// Merges the journal into the snapshot, if there is a journal.
    ///
    /// Five steps, each durable before the next:
    ///
    /// 1. Write the new snapshot under another name. A crash leaves this file behind; nothing
    ///    refers to it.
    /// 2. Announce the digest of the new snapshot in the journal. After a crash there is the old
    ///    snapshot with its journal, and the announcement has no effect.
    /// 3. Replace the snapshot. After a crash there is the new snapshot with a journal that
    ///    announces it; replaying the journal on it gives the same map.
    /// 4. Replace the meta file; it names the journal as compacted. After a crash the
    ///    journal is known to be obsolete.
    /// 5. Remove the journal.
    ///
    /// If step 3 came before step 2, the new snapshot would look like one that was edited. If
    /// step 4 came before step 3, the revisions of the new values would be read with the old
    /// values. If step 5 came before step 4, these revisions would be lost.
    pub(super) fn compact(&mut self, folder: &Folder) -> Result<()> {
        let result = self.compact_journal(folder);
        // After a failure, the next attempt is made once `max_journal` more bytes are written.
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
        let NewSnapshot { file, values } = self.write_snapshot(folder, journal, &path)?;
        let digest = file.digest();
        self.append(folder, journal, &frame::announcement(digest))?;

        // From here on, the store may differ from the files if a step fails, and is then
        // read again.
        self.is_stale = true;
        file.replace()?;
        folder.sync()?;
        let fingerprints: Vec<_> = values.iter().map(|(_, print)| *print).collect();
        let rest = (Some(digest), journal.id);
        let checksum = self.put_meta(folder, rest, self.incarnation, &fingerprints)?;
        let looks = OpenFile::open(&*folder.disk, &path)?.looks()?;
        self.snapshot = Some((digest, looks));
        self.meta = Some(checksum);
        self.loaded = self.last;
        self.journal = None;
        for (entry, (place, _)) in self.index.values_mut().zip(values) {
            entry.place = place;
        }
        self.is_stale = false;

        // If only this fails, the next journal replaces the old one.
        remove_journal(folder, &self.files)
    }

    fn write_snapshot<'a>(
        &self,
        folder: &Folder,
        journal: Journal,
        path: &'a Path,
    ) -> Result<NewSnapshot<'a>> {
        let mut new = NewSnapshot {
            file: Replacement::create(&*folder.disk, path, path)?,
            values: Vec::with_capacity(self.index.len()),
        };
        let values = self.values(folder).with_journal_in_memory(journal.bytes)?;
        let mut entries = self.index.iter().peekable();
        let pages = iter::from_fn(|| {
            entries.peek()?;
            Some(Page::next(&mut entries).entries)
        });
        let pages: Vec<_> = pages.collect();
        let render = |n: usize, page: &Vec<_>| self.render(&values, page, n == 0);
        in_order(&pages, render, |rendered| new.add(&rendered))?;
        let end: &[u8] = if pages.is_empty() { b"{}\n" } else { b"\n}\n" };
        new.file.write(end)?;
        new.file.sync()?;
        Ok(new)
    }

    fn render(
        &self,
        values: &Values<'_>,
        page: &[(&Arc<str>, &Entry)],
        is_first: bool,
    ) -> Result<Rendered> {
        let places: Vec<_> = page.iter().map(|(_, entry)| entry.place).collect();
        let mut text = Vec::new();
        let mut rendered = Vec::with_capacity(page.len());
        for ((key, entry), value) in page.iter().zip(values.read(&places)?) {
            let value = std::str::from_utf8(&value).map_err(|error| self.not_text(key, error))?;
            let is_start = is_first && text.is_empty();
            text.extend(if is_start { b"{\n  " } else { b",\n  " });
            put_quoted(&mut text, key);
            text.extend(b": ");
            let offset = text.len() as u64;
            text.extend(value.as_bytes());
            // Not longer than before, and the old length was stored in 32 bits.
            let bytes = u32::try_from(value.len()).unwrap_or(entry.place.bytes);
            let (encoding, schema) = (entry.place.encoding(), entry.place.schema);
            let place = Place::new(Source::Snapshot, offset, bytes).with_form(encoding, schema);
            rendered.push((place, fingerprint(value)));
        }
        Ok(Rendered {
            text,
            values: rendered,
        })
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

    /// Replaces the meta file, and returns its checksum. It describes this snapshot, whose
    /// values have these fingerprints, and names this journal as compacted; 0 for none.
    pub(super) fn put_meta(
        &self,
        folder: &Folder,
        (snapshot, journal): (Option<u128>, u64),
        incarnation: Option<Incarnation>,
        fingerprints: &[u64],
    ) -> Result<u128> {
        let head = Head {
            format: meta::FORMAT,
            map: self.map.clone(),
            counter: self.last,
            incarnation,
            snapshot,
            compacted: journal,
            writers: self.recent_writers(folder),
            entries: Pairs(Vec::new()),
            tombstones: None,
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

    /// The rows of the meta file. The fingerprints are in the order of the index.
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

impl NewSnapshot<'_> {
    fn add(&mut self, page: &Rendered) -> Result<()> {
        let start = self.file.size();
        let values = page.values.iter();
        self.values
            .extend(values.map(|(place, print)| (place.behind(start), *print)));
        self.file.write(&page.text)
    }
}
