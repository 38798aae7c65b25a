//! The journal of one map: a file of acknowledged batches.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    body::{Body, Tokens},
    entry::{self, Entry},
    folder::Folder,
};
use crate::{
    batch::{Batch, BatchId, Change, MapBatch, Turn, WriterId},
    disk::{
        fault::corrupt,
        file::{OpenFile, read_whole},
    },
    error::{Error, ErrorKind, Result},
    journal::{
        FRAME_HEADER, Frames, Head, frame, header,
        writing::{put, write},
    },
    name::MapName,
    trace::PROVIDER,
};

const MAGIC: [u8; 8] = *b"\xffPPEND\xfe\n";
const FORMAT: u32 = 1;

/// A file is rewritten once so many bytes of it were drained, and more than are left.
const MAX_DRAINED: u64 = 1 << 20;

/// The journal of one map. Its methods block.
#[derive(Debug)]
pub(super) struct MapJournal {
    pub(super) map: MapName,
    path: PathBuf,
    aside: PathBuf,
    pub(super) tokens: Tokens,
    /// The id of the file.
    id: u64,
    bytes: u64,
    frames: u64,
    /// There is no file, or its end is unknown: it is replaced before the next append. After
    /// a failed write or sync, a later sync of the same file would prove nothing.
    is_broken: bool,
    /// The entries that the remote may not have.
    pub(super) pending: VecDeque<Entry>,
    /// The size of their frames.
    pub(super) pending_bytes: u64,
    /// The number of the next entry.
    pub(super) next: u64,
    /// The last acknowledged sequence of each writer.
    pub(super) writers: HashMap<WriterId, u64>,
    /// How many changes are set aside.
    pub(super) set_aside: u64,
}

impl MapJournal {
    /// Reads the journal of a map. An incomplete entry at the end was never acknowledged; it
    /// is left out.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the file is damaged; it is left as it is.
    pub(super) fn open(folder: &Folder, map: &MapName) -> Result<Self> {
        let (path, aside) = folder.files(map);
        let mut journal = Self {
            map: map.clone(),
            tokens: Tokens::default(),
            id: 0,
            bytes: 0,
            frames: 0,
            is_broken: true,
            pending: VecDeque::new(),
            pending_bytes: 0,
            next: 1,
            writers: HashMap::new(),
            set_aside: 0,
            path,
            aside,
        };
        if let Some((bytes, _)) = read_whole(&*folder.disk, &journal.path)? {
            journal.replay(&bytes)?;
        }
        let refused = read_whole(&*folder.disk, &journal.aside)?;
        let lines = refused.map_or(0, |(bytes, _)| {
            bytes.split(|byte| *byte == b'\n').count() - 1
        });
        journal.set_aside = lines as u64;
        Ok(journal)
    }

    /// The map whose journal this file is.
    pub(super) fn map_of(folder: &Folder, path: &Path) -> Result<MapName> {
        let bytes = read_whole(&*folder.disk, path)?.map_or_else(Vec::new, |(bytes, _)| bytes);
        let body = Head::read(MAGIC, &bytes).and_then(|head| Body::read(head.body));
        body.map(|body| body.map).ok_or_else(|| damaged(path, 0))
    }

    fn replay(&mut self, bytes: &[u8]) -> Result<()> {
        let head = Head::read(MAGIC, bytes).ok_or_else(|| damaged(&self.path, 0))?;
        if head.format != FORMAT {
            let problem = format!("it has format {}, and this version reads 1", head.format);
            let remedy = "open it with the version that wrote it";
            return Err(corrupt(&self.path, &problem, remedy).on_map(&self.map));
        }
        let body = Body::read(head.body).filter(|body| body.map == self.map);
        let body = body.ok_or_else(|| damaged(&self.path, 0))?;
        (self.id, self.tokens, self.next) = (body.id, body.tokens, body.first);
        let frames = Frames::read(bytes, head.end, self.id);
        let frames = frames.map_err(|at| damaged(&self.path, at))?;
        for (at, line) in &frames.payloads {
            let entry = entry::decode(&self.map, line).filter(|(number, _)| *number == self.next);
            let (_, batch) = entry.ok_or_else(|| damaged(&self.path, *at))?;
            self.add(batch, (FRAME_HEADER + line.len()) as u64);
        }
        // An entry is appended only once the remote has confirmed the token.
        if !frames.payloads.is_empty() && self.tokens.confirmed.is_none() {
            self.tokens.confirmed = self.tokens.latest;
        }
        (self.bytes, self.frames) = (frames.end as u64, frames.payloads.len() as u64);
        self.is_broken = frames.end < bytes.len();
        if self.is_broken {
            tracing::warn!(target: PROVIDER, journal = %self.path.display(), "the last batch in the journal is incomplete, because of a crash; it was not acknowledged and is left out");
        }
        Ok(())
    }

    fn add(&mut self, batch: Batch, bytes: u64) {
        self.writers.insert(batch.id.writer, batch.id.sequence);
        let number = self.next;
        self.pending.push_back(Entry {
            number,
            batch,
            bytes,
        });
        self.pending_bytes += bytes;
        self.next += 1;
    }

    /// Appends a batch durably, unless it is a repeat.
    ///
    /// # Errors
    ///
    /// `Superseded`; `Unavailable` if the journal is full; the errors of the disk.
    pub(super) fn append(&mut self, folder: &Folder, batch: &Batch, max: u64) -> Result<()> {
        match self.turn(batch.id) {
            Turn::Repeat => return Ok(()),
            Turn::Superseded => {
                let message = "a later batch of this writer was acknowledged already";
                return Err(Error::new(ErrorKind::Superseded, message).on_map(&self.map));
            }
            Turn::Apply => {}
        }
        let line = entry::encode(self.next, batch)?;
        let bytes = (FRAME_HEADER + line.len()) as u64;
        if self.pending_bytes + bytes > max {
            return Err(self.full(bytes, max));
        }
        folder.check_in_place()?;
        if self.is_broken {
            self.rewrite(folder)?;
        }
        self.append_frame(folder, &line)?;
        self.add(batch.clone(), bytes);
        Ok(())
    }

    fn turn(&self, id: BatchId) -> Turn {
        id.turn(self.writers.get(&id.writer).copied())
    }

    fn append_frame(&mut self, folder: &Folder, line: &[u8]) -> Result<()> {
        let mut opened = OpenFile::open_to_append(&*folder.disk, &self.path)?;
        if opened.size()? != self.bytes {
            let problem = "another program has changed it";
            let remedy = "nothing was written; restore it, and open the layer again";
            return Err(corrupt(&self.path, problem, remedy).on_map(&self.map));
        }
        let frame = frame(self.id, self.frames, line);
        let size = self.bytes + frame.len() as u64;
        self.is_broken = true;
        write(&mut *opened.file, &self.path, &frame, size)?;
        self.is_broken = false;
        (self.bytes, self.frames) = (size, self.frames + 1);
        Ok(())
    }

    /// Replaces the file by one with the pending entries only. A crash leaves the old one or
    /// the new one; both have them all.
    pub(super) fn rewrite(&mut self, folder: &Folder) -> Result<()> {
        folder.check_in_place()?;
        let body = Body {
            id: rand::random_range(1..=u64::MAX),
            tokens: self.tokens,
            first: self.pending.front().map_or(self.next, |first| first.number),
            map: self.map.clone(),
        };
        let mut bytes = header(MAGIC, FORMAT, &body.to_bytes());
        for (number, pending) in (0..).zip(&self.pending) {
            let line = entry::encode(pending.number, &pending.batch)?;
            bytes.extend(frame(body.id, number, &line));
        }
        self.is_broken = true;
        put(&*folder.disk, &self.path, &self.path, &bytes)?;
        self.is_broken = false;
        (self.id, self.bytes, self.frames) =
            (body.id, bytes.len() as u64, self.pending.len() as u64);
        Ok(())
    }

    /// Removes the entries up to this number: the remote has them.
    pub(super) fn drained(&mut self, folder: &Folder, to: u64) -> Result<()> {
        while let Some(first) = self.pending.front().filter(|first| first.number <= to) {
            self.pending_bytes -= first.bytes;
            self.pending.pop_front();
        }
        let drained = self.bytes.saturating_sub(self.pending_bytes);
        if drained >= MAX_DRAINED && drained > self.pending_bytes {
            self.rewrite(folder)?;
        }
        Ok(())
    }

    /// Removes the drained entries from the file.
    pub(super) fn tidy(&mut self, folder: &Folder) -> Result<()> {
        if self.frames > self.pending.len() as u64 {
            self.rewrite(folder)?;
        }
        Ok(())
    }

    /// Drops all entries, durably. The map then has no owner here.
    pub(super) fn discard(&mut self, folder: &Folder) -> Result<u64> {
        let tokens = std::mem::take(&mut self.tokens);
        let pending = std::mem::take(&mut self.pending);
        let bytes = std::mem::take(&mut self.pending_bytes);
        if let Err(error) = self.rewrite(folder) {
            // The file may still have the entries.
            (self.tokens, self.pending, self.pending_bytes) = (tokens, pending, bytes);
            return Err(error);
        }
        Ok(pending.len() as u64)
    }

    /// Removes the claims of all entries about the state of the remote, durably.
    pub(super) fn unclaim(&mut self, folder: &Folder) -> Result<()> {
        for pending in &mut self.pending {
            let part = entry::part(&pending.batch);
            let bare = MapBatch::new(part.map.clone(), part.changes.clone());
            pending.batch.maps = [bare.clearing(part.clear)].into();
        }
        self.rewrite(folder)
    }

    /// Adds changes to the file of those that the remote refused, durably.
    pub(super) fn set_aside(
        &mut self,
        folder: &Folder,
        number: u64,
        changes: &[Change],
        error: &Error,
    ) -> Result<()> {
        folder.check_in_place()?;
        let before = read_whole(&*folder.disk, &self.aside)?;
        let mut bytes = before.map_or_else(Vec::new, |(bytes, _)| bytes);
        bytes.extend(entry::refusals(number, changes, error)?);
        put(&*folder.disk, &self.aside, &self.aside, &bytes)?;
        self.set_aside += changes.len() as u64;
        tracing::error!(target: PROVIDER, map = %self.map, changes = changes.len(), kept_in = %self.aside.display(), error = %error.logged(), "the remote refused changes that were acknowledged; they are set aside");
        Ok(())
    }

    /// The pending entries as lines of JSON.
    pub(super) fn lines(&self) -> Result<String> {
        let mut lines = Vec::new();
        for pending in &self.pending {
            lines.extend(entry::encode(pending.number, &pending.batch)?);
            lines.push(b'\n');
        }
        String::from_utf8(lines).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "the journal is not text").with_source(error)
        })
    }

    fn full(&self, bytes: u64, max: u64) -> Error {
        let message = format!(
            "the journal {} is full: {} bytes wait for the remote, {bytes} more exceed the \
             {max} of `max_bytes`; nothing was written; it has room again once the remote is \
             back",
            self.path.display(),
            self.pending_bytes
        );
        let error = Error::new(ErrorKind::Unavailable, message);
        error.nothing_applied().on_map(&self.map)
    }

    pub(super) fn content(&self) -> Content {
        Content {
            batches: self.pending.len() as u64,
            bytes: self.pending_bytes,
            oldest: self.pending.front().map(|first| first.batch.at),
            set_aside: self.set_aside,
        }
    }
}

/// The content of a journal, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Content {
    pub(super) batches: u64,
    pub(super) bytes: u64,
    /// When the oldest batch was made.
    pub(super) oldest: Option<SystemTime>,
    pub(super) set_aside: u64,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (batches, bytes) = (self.batches, self.bytes);
        write!(
            f,
            "{batches} acknowledged batches ({bytes} bytes) wait in the journal"
        )
    }
}

fn damaged(path: &Path, at: usize) -> Error {
    let problem = format!("it is damaged at byte {at}");
    let remedy = "nothing was changed; restore a copy of it, or, to go on without its batches, \
                  move it away";
    corrupt(path, &problem, remedy)
}
