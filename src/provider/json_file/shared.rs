//! What the handles of a folder share: the maps that are open in it.

use std::{
    collections::{BTreeSet, HashMap},
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{base64_text, files::Folder, store::Store};
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

/// A folder that is held locked, and the maps that are open in it.
pub(super) struct Shared {
    folder: Folder,
    /// A slot is never taken out again: whoever waits for it would then hold
    /// another one than whoever comes later, and a map would be open twice.
    slots: Mutex<HashMap<MapName, Arc<Slot>>>,
    /// The compactions in the background, each until the next one of the map.
    compactions: Mutex<HashMap<MapName, JoinHandle<()>>>,
    /// The revisions at which maps were dropped. Their files are gone, so only writers of
    /// this opening can be late: the lock of the folder keeps out all others.
    drops: Mutex<HashMap<MapName, Revision>>,
    is_closed: AtomicBool,
}

/// A map while it is open. All that happens to its files happens under this
/// lock, one thing after the other.
type Slot = Mutex<Option<Store>>;

impl Shared {
    pub(super) fn new(folder: Folder) -> Self {
        Self {
            folder,
            slots: Mutex::default(),
            compactions: Mutex::default(),
            drops: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Works on an open map; opens it first if need be.
    ///
    /// While the work goes on, the slot is empty: if it panics, or leaves a
    /// store that may not be as the files are, the map is read anew next time.
    pub(super) fn with<T>(
        &self,
        map: &MapName,
        work: impl FnOnce(&Folder, &mut Store) -> Result<T>,
    ) -> Result<T> {
        let slot = self.slot(map)?;
        let mut held = slot.lock();
        self.check_open()?;
        let mut store = match held.take() {
            Some(store) => store,
            None => Store::open(&self.folder, map)?,
        };
        let done = work(&self.folder, &mut store);
        keep(&mut held, store);
        done
    }

    /// Commits, and says whether a compaction is due.
    pub(super) fn commit(&self, batch: &Batch) -> Result<(Committed, bool)> {
        let part = match &*batch.maps {
            [part] => part,
            // Nothing to commit, and so nothing that could fail to be.
            [] => return Ok((Committed::at(batch.revision_after(batch.after)), false)),
            _ => return Err(several_maps()),
        };
        check_payloads(part)?;
        self.with(&part.map, |folder, store| {
            // Under the lock that a drop holds, and before a store without files can
            // take the batch for one of another time.
            let dropped = self.dropped(&part.map);
            ledger::check_dropped(batch, |_| Ok::<_, Error>(dropped))?;
            let mut batch = batch.clone();
            batch.after = batch.after.max(dropped.unwrap_or_default());
            let answer = store.commit(folder, &batch, part)?;
            let is_due = store.is_outgrown();
            if is_due {
                // The next one is due when as much was written again.
                store.compact_at = store.compact_at.saturating_add(folder.max_journal);
            }
            Ok((answer, is_due))
        })
    }

    /// Loads the changes of a map after a revision. To a reader that follows it, a drop is a
    /// clear; but a file that was only detached keeps its entries, and they have lost their
    /// revisions, so the reader loads all of them.
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

    /// Drops a map, or detaches an adopted file; its writers are fenced by the revision of
    /// the drop. If it fails after the commit that clears the map, the map may be empty, and
    /// is read anew next time.
    pub(super) fn drop_map(&self, map: &MapName) -> Result<()> {
        let slot = self.slot(map)?;
        let mut held = slot.lock();
        self.check_open()?;
        let mut store = match held.take() {
            Some(store) => store,
            None => Store::open(&self.folder, map)?,
        };
        let mut batch = ledger::clearing(map);
        batch.after = self.dropped(map).unwrap_or_default();
        let revision = store.empty_or_detach(&self.folder, &batch)?;
        // Before the files go: from here on nothing of before may be written.
        self.drops.lock().insert(map.clone(), revision);
        let removed = store.remove_files(&self.folder);
        removed.map_err(|error| error.on_map(map).outcome_unknown())
    }

    /// The revision at which a map was last dropped.
    pub(super) fn dropped(&self, map: &MapName) -> Option<Revision> {
        self.drops.lock().get(map).copied()
    }

    /// Starts to compact the journal of a map in the background.
    pub(super) fn start_compaction(self: &Arc<Self>, map: &MapName) {
        let (shared, name) = (self.clone(), map.clone());
        let compaction = tokio::task::spawn_blocking(move || shared.compact(&name));
        self.compactions.lock().insert(map.clone(), compaction);
    }

    /// Waits until nothing happens to the map, or to any, in the background:
    /// what goes on there holds the folder.
    pub(super) async fn settle(&self, map: Option<&MapName>) {
        let running: Vec<_> = {
            let mut all = self.compactions.lock();
            let of_these = |of: &MapName| map.is_none_or(|map| map == of);
            let (these, others) = mem::take(&mut *all)
                .into_iter()
                .partition::<HashMap<_, _>, _>(|(of, _)| of_these(of));
            *all = others;
            these.into_values().collect()
        };
        for compaction in running {
            // It has logged what failed; if it was cut short, it is done too.
            let _ = compaction.await;
        }
    }

    /// Compacts the journal of a map. A failure is logged, and the next attempt is
    /// made when more was written.
    fn compact(&self, map: &MapName) {
        let compacted = self.with_open(map, |folder, held, mut store| {
            let compacted = store.compact(folder);
            keep(held, store);
            compacted
        });
        if let Err(error) = compacted.unwrap_or(Ok(())) {
            tracing::warn!(target: PROVIDER, map = map.as_str(), error = %error.logged(), "the journal was not compacted");
        }
    }

    /// Compacts the journal of a map, and forgets the map.
    pub(super) fn release(&self, map: &MapName) -> Result<()> {
        self.check_open()?;
        self.forget(map)
    }

    fn forget(&self, map: &MapName) -> Result<()> {
        let forgotten = self.with_open(map, |folder, held, mut store| {
            let compacted = store.compact(folder);
            if compacted.is_err() {
                keep(held, store);
            }
            compacted
        });
        forgotten.unwrap_or(Ok(()))
    }

    /// Works on a map if it is open. The slot is empty meanwhile.
    fn with_open<T>(
        &self,
        map: &MapName,
        work: impl FnOnce(&Folder, &mut Option<Store>, Store) -> T,
    ) -> Option<T> {
        let slot = self.slots.lock().get(map).cloned()?;
        let mut held = slot.lock();
        let store = held.take()?;
        Some(work(&self.folder, &mut held, store))
    }

    /// Compacts all journals, forgets all maps and lets go of the lock. If a
    /// journal cannot be compacted, it stays, and is read at the next open.
    pub(super) fn close(&self) -> Result<()> {
        let maps: Vec<_> = {
            let slots = self.slots.lock();
            self.is_closed.store(true, Ordering::Release);
            slots.keys().cloned().collect()
        };
        let mut closed = Ok(());
        for map in maps {
            closed = closed.and(self.forget(&map));
            self.with_open(&map, |_, _, store| drop(store));
        }
        // Whoever waited for a slot sees now that it is closed.
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

/// Puts a store back into its slot, unless it may not be as the files are.
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
/// `Refused`, with the keys of those that cannot.
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
