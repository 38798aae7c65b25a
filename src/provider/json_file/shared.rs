//! The maps that are open in a folder, shared by all handles of it.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use super::{files::Folder, format::base64_text, store::Store};
use crate::{
    batch::{Batch, Committed, MapBatch, Op},
    codec::json,
    error::{Error, ErrorKind, Result},
    load::Load,
    name::MapName,
    provider::ledger,
    record::{Encoding, Revision},
    trace::PROVIDER,
};

/// A locked folder, and the maps that are open in it.
pub(super) struct Shared {
    folder: Folder,
    /// A slot is never removed. Otherwise a caller that waits for it and a later caller
    /// would hold different slots, and the map would be open twice.
    slots: Mutex<HashMap<MapName, Arc<Slot>>>,
    /// The revisions at which maps were dropped. Their files are gone, so only writers of
    /// this opening can be late: the lock of the folder keeps out all others.
    drops: Mutex<HashMap<MapName, Revision>>,
    is_closed: AtomicBool,
}

/// A map, if it is open. All work on its files happens under this lock.
type Slot = Mutex<Option<Store>>;

impl Shared {
    pub(super) fn new(folder: Folder) -> Self {
        Self {
            folder,
            slots: Mutex::default(),
            drops: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Works on an open map. Opens it first if necessary.
    ///
    /// The slot is empty during the work: if the work panics, or leaves a store that may
    /// differ from the files, the map is read again next time.
    pub(super) fn with<T>(
        &self,
        map: &MapName,
        work: impl FnOnce(&Folder, &mut Store) -> Result<T>,
    ) -> Result<T> {
        self.with_slot(map, |slot| {
            let mut store = self.take_or_open(map, slot)?;
            let done = work(&self.folder, &mut store);
            keep(slot, store);
            done
        })
    }

    fn with_slot<T>(
        &self,
        map: &MapName,
        work: impl FnOnce(&mut Option<Store>) -> Result<T>,
    ) -> Result<T> {
        let slot = self.slot(map)?;
        let mut held = slot.lock();
        // The folder may have been closed while this waited for the slot.
        self.check_open()?;
        work(&mut held)
    }

    fn take_or_open(&self, map: &MapName, slot: &mut Option<Store>) -> Result<Store> {
        let open = || Store::open(&self.folder, map);
        slot.take().map_or_else(open, Ok)
    }

    /// Commits a batch, and returns whether a compaction is due.
    pub(super) fn commit(&self, batch: &Batch) -> Result<(Committed, bool)> {
        let part = match &*batch.maps {
            [part] => part,
            // There is nothing to commit, so it cannot fail.
            [] => return Ok((Committed::at(batch.revision_after(batch.after)), false)),
            _ => return Err(several_maps()),
        };
        check_payloads(part)?;
        self.with(&part.map, |folder, store| {
            // Checked under the lock that a drop holds, and before a store without
            // files could mistake the batch for one from before a rewind.
            let dropped = self.dropped(&part.map);
            ledger::check_dropped(batch, |_| Ok::<_, Error>(dropped))?;
            let mut batch = batch.clone();
            batch.after = batch.after.max(dropped.unwrap_or_default());
            let answer = store.commit(folder, &batch, part)?;
            let is_due = store.is_outgrown();
            if is_due {
                // The next one is due once `max_journal` more bytes are written.
                store.compact_at = store.compact_at.saturating_add(folder.max_journal);
            }
            Ok((answer, is_due))
        })
    }

    /// Loads the changes of a map after a revision. To a reader that follows it, a drop is a
    /// clear. But a detached file keeps its entries without their revisions, so the reader
    /// loads all of them.
    pub(super) fn changes(
        &self,
        map: &MapName,
        after: Revision,
        limit: usize,
    ) -> Result<Load<'static>> {
        self.with(map, |folder, store| {
            store.keep_up(folder)?;
            let dropped = self.dropped(map).filter(|at| *at > after);
            let last = store.last.max(dropped.unwrap_or_default());
            let mut load = if dropped.is_some() && folder.adopted.contains_key(map) {
                Load::of(last, Vec::new()).with_pruned_to(dropped)
            } else {
                store.changes(folder, after, limit, last)?
            };
            if load.pruned_to.is_none() {
                load.cleared = load.cleared.max(dropped);
            }
            Ok(load.with_incarnation(store.incarnation))
        })
    }

    /// Drops a map, or detaches an adopted file. The revision of the drop fences its writers.
    ///
    /// If it fails after the commit that clears the map, the map may be empty, and is read
    /// again next time.
    pub(super) fn drop_map(&self, map: &MapName) -> Result<()> {
        self.with_slot(map, |slot| {
            let mut store = self.take_or_open(map, slot)?;
            let mut batch = ledger::clearing(map);
            batch.after = self.dropped(map).unwrap_or_default();
            let revision = store.empty_or_detach(&self.folder, &batch)?;
            // Set before the files are removed: from here on no earlier batch may be written.
            self.drops.lock().insert(map.clone(), revision);
            let removed = store.remove_files(&self.folder);
            removed.map_err(|error| error.on_map(map).outcome_unknown())
        })
    }

    /// The revision at which a map was last dropped.
    pub(super) fn dropped(&self, map: &MapName) -> Option<Revision> {
        self.drops.lock().get(map).copied()
    }

    /// Starts to compact the journal of a map in the background. A failure is logged, and
    /// the next attempt is made when more is written.
    pub(super) fn start_compaction(self: &Arc<Self>, map: &MapName) {
        let (shared, map) = (self.clone(), map.clone());
        tokio::task::spawn_blocking(move || match shared.compact(&map, false) {
            Err(error) if error.kind() != ErrorKind::Closed => {
                tracing::warn!(target: PROVIDER, map = map.as_str(), error = %error.logged(), "the journal was not compacted");
            }
            _ => {}
        });
    }

    /// Compacts the journal of a map, and closes the map.
    pub(super) fn release(&self, map: &MapName) -> Result<()> {
        self.compact(map, true)
    }

    fn compact(&self, map: &MapName, is_released: bool) -> Result<()> {
        self.with_slot(map, |slot| {
            let Some(mut store) = slot.take() else {
                return Ok(());
            };
            let compacted = store.compact(&self.folder);
            if compacted.is_err() || !is_released {
                keep(slot, store);
            }
            compacted
        })
    }

    /// Compacts all journals, closes all maps and unlocks the folder. A journal that cannot
    /// be compacted stays, and is read at the next open.
    pub(super) fn close(&self) -> Result<()> {
        let slots: Vec<_> = {
            let slots = self.slots.lock();
            self.is_closed.store(true, Ordering::Release);
            slots.values().cloned().collect()
        };
        let mut closed = Ok(());
        for slot in slots {
            // This waits for the work that has the slot. Later work finds the folder closed.
            let store = slot.lock().take();
            let compacted = store.map_or(Ok(()), |mut store| store.compact(&self.folder));
            closed = closed.and(compacted);
        }
        self.folder.lock.lock().take();
        closed
    }

    /// The maps that have a file in the folder.
    pub(super) fn maps(&self) -> Result<Vec<MapName>> {
        self.check_open()?;
        let names = self.folder.list()?;
        let mut maps = BTreeSet::new();
        for name in &names {
            let Some((stem, "json" | "meta" | "journal")) = name.rsplit_once('.') else {
                continue;
            };
            maps.extend(self.folder.map_called(stem)?);
        }
        Ok(maps.into_iter().collect())
    }

    pub(super) fn ping(&self) -> Result<()> {
        self.check_open()?;
        self.folder.check_in_place()?;
        self.folder.try_write()
    }

    fn slot(&self, map: &MapName) -> Result<Arc<Slot>> {
        let mut slots = self.slots.lock();
        self.check_open()?;
        Ok(slots.entry(map.clone()).or_default().clone())
    }

    fn check_open(&self) -> Result<()> {
        if !self.is_closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let message = format!(
            "the folder {} was closed; open it again",
            self.folder.path.display()
        );
        Err(Error::new(ErrorKind::Closed, message))
    }
}

/// Puts a store back into its slot, unless it may differ from the files.
fn keep(slot: &mut Option<Store>, store: Store) {
    *slot = Some(store).filter(|store| !store.is_stale);
}

fn several_maps() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "a folder of JSON files cannot commit to several maps at once; commit to each of them",
    )
}

/// Checks that all values of a batch can be stored.
///
/// # Errors
///
/// `Refused`, with the keys of the values that cannot.
fn check_payloads(part: &MapBatch) -> Result<()> {
    let mut refused = Vec::new();
    let mut cause = None;
    for change in &part.changes {
        let Op::Put { payload, .. } = &change.op else {
            continue;
        };
        let (length, error) = match payload.encoding {
            Encoding::Json => (Some(payload.bytes.len()), json::text(&payload.bytes).err()),
            Encoding::Bytes => (base64_text::encoded_length(payload.bytes.len()), None),
        };
        if error.is_some() || length.is_none_or(|length| u32::try_from(length).is_err()) {
            refused.push(change.key.clone());
            cause = cause.or(error);
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let message = "a value is not JSON text of at most 4 GiB; nothing was written";
    let error = Error::new(ErrorKind::Refused, message)
        .on_map(&part.map)
        .on_keys(refused);
    Err(match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    })
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonFile")
            .field("folder", &self.folder.path)
            .finish_non_exhaustive()
    }
}
