//! A layer that acknowledges saves when a journal on the local disk has them.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::OnceCell;

use super::{Layer, chain::IntoLayer};
#[cfg(feature = "testing")]
use crate::disk::Disk;
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
    provider::Provider,
};

mod body;
mod calls;
mod decisions;
mod drain;
mod entry;
mod folder;
mod map_journal;
mod options;
mod overlay;
mod owner;
mod state;
mod stats;
mod tasks;

use folder::Folder;
use map_journal::MapJournal;
pub use options::Acknowledge;
use options::Options;
use owner::is_beside;
use state::{State, States, blocking};
pub use stats::JournalStats;
use tasks::Drains;

/// Acknowledges saves when a journal on the local disk has them, and sends them to the wrapped
/// provider, the remote, in the background.
///
/// While the remote is down, saves go on: `insert_and_save` returns when its change is synced
/// to the journal. Once the remote is back, it gets every acknowledged batch of a map in order
/// and once, also after a crash of the program. The exceptions are below: changes that the remote
/// refuses, and journals whose map has another owner.
///
/// ```
/// use persistify::{Journaled, Memory, PersistentMap, ProviderExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (remote, spool) = (Memory::new(), folder.path().join("spool"));
/// let store = remote.layer(Journaled::new(spool).max_bytes(64 << 20));
/// let stock = PersistentMap::builder(store.clone(), "stock").open().await?;
/// stock.insert_and_save("apple", 3).await?; // in the journal
/// store.drain().await?; // in the remote
/// assert!(store.stats().values().all(|journal| journal.batches == 0));
/// # stock.close().await
/// # }
/// ```
///
/// # What is acknowledged locally
///
/// Batches of one map without conditions: those of the background flush, which includes
/// `insert_and_save` and `flush`. A conditional or atomic commit, or one of several maps, needs an
/// answer of the remote: the journals of its maps are drained first, then it is passed on. If they
/// cannot be drained, nothing of it was applied, and it fails as
/// [`Unavailable`](ErrorKind::Unavailable), or as [`Unusable`](ErrorKind::Unusable) if a person
/// has to decide about a journal (see below).
///
/// These flushes have conditions too, so their batches wait for the remote: all of a map that
/// [detects conflicts](crate::Builder::conflicts), and those that contain an automatic change, such
/// as the removal of an expired entry or the rewrite of a migrated one.
///
/// # One owner a map
///
/// Opening a map makes this folder the owner of the map: a row in the map
/// `<map>/journal-owner` of the remote, which every drained batch moves forward in the same
/// commit. A process with another folder that opens the map replaces the owner. The old owner
/// does not send its journal over newer values. It notices the new owner when it sends the next
/// batch; until then it acknowledges saves. From then on it keeps its journal, its saves fail as
/// [`Unusable`](ErrorKind::Unusable), and the error in [`stats`](Self::stats) is
/// [`Superseded`](ErrorKind::Superseded). The same happens, as
/// [`Rewound`](ErrorKind::Rewound), if the remote has lost batches that it had acknowledged.
/// A person decides: [`export`](Self::export), [`discard`](Self::discard) or
/// [`force`](Self::force).
///
/// The first open of a map needs a remote that takes commits. Later ones need one that loads,
/// such as a standby: pending batches are applied to the loaded records. Pages and changes
/// cannot be loaded before the journal has reached the remote. The journals of maps that are
/// not opened again are sent as well, after the first call of the layer.
///
/// # Refused changes
///
/// The remote may refuse a change that was acknowledged. The change is then set aside in
/// `<map>.refused.jsonl` in the folder, logged as an error and counted in
/// [`stats`](Self::stats); the rest of its batch is sent. The map keeps the value in memory.
///
/// # When not to use it
///
/// - For maps that several processes write: each would replace the other as the owner.
/// - If other readers of the store must see an acknowledged change at once.
///
/// The health of a map stays `Healthy` while the remote is down: watch [`stats`](Self::stats).
///
/// # Time limits
///
/// The layer waits up to 30 seconds for the answer to each call of the remote that drains a
/// journal or reads its owner. It repeats failed attempts in the background after 100 milliseconds,
/// doubling up to 10 seconds. Closing a map waits up to 10 seconds for its journal to be sent, and
/// [`close`](Provider::close) up to 10 seconds for each map, one after the other. The rest is sent
/// after the next open. These limits are fixed.
///
/// # Order among layers
///
/// The journal holds keys and values as plain text, in files that only this user can read.
/// Encryption therefore goes above it: `remote.layer(Journaled::new(..)).layer(encrypted)`. The
/// remote must support conditions and batches of several maps, as SQLite and Postgres do.
///
/// # Errors
///
/// In addition to those of the remote:
///
/// - `Invalid`, from the first call, if [`max_bytes`](Self::max_bytes) is out of its bounds, or if
///   the remote encrypts; and for a map whose name is `journal-owner`.
/// - `Unsupported`, from the first call, if the remote lacks one of the two abilities.
/// - `Unavailable` if another process has locked the folder, if the journal is full, or if a call
///   needs the remote while it is down.
/// - `Unusable` if the disk fails, if the folder was removed or replaced while it was open, or if a
///   person has to decide about a journal.
/// - `Corrupt` if a journal is damaged; it is left as it is. If that is found when the folder is
///   opened, no map of the layer opens.
/// - `Closed` after [`close`](Provider::close).
///
/// # Cost
///
/// A commit writes the batch to the journal, as a line of JSON, and syncs it; the remote
/// commits it later, with one more row. Pending batches are also in memory.
///
/// Cancel safety: dropping the future of a commit does not stop the write to the journal. A
/// repeat of the batch is acknowledged and not written again.
pub struct Journaled<P = ()> {
    inner: Arc<P>,
    options: Options,
    journals: Arc<Journals>,
    drains: Arc<Drains>,
}

/// The journals, shared by all clones.
#[derive(Debug, Default)]
struct Journals {
    folder: OnceCell<Arc<Folder>>,
    states: States,
    is_closed: AtomicBool,
}

impl Journaled {
    /// Creates a layer with its journals in this folder; see
    /// [`ProviderExt::layer`](crate::ProviderExt::layer). The first call of the layer creates
    /// the folder, if it is missing, and locks it until the layer is [closed](Provider::close) or
    /// dropped.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self {
            inner: Arc::new(()),
            options: Options::new(folder.as_ref()),
            journals: Arc::default(),
            drains: Arc::default(),
        }
    }

    /// Sets when a commit is acknowledged; [`Local`](Acknowledge::Local) by default.
    #[must_use]
    pub fn acknowledge(mut self, when: Acknowledge) -> Self {
        self.options.acknowledge = when;
        self
    }

    /// Sets the maximum size, in bytes, of the batches of one map that wait for the remote:
    /// 256 MiB by default, at least 64 KiB. A save beyond it fails as
    /// [`Unavailable`](ErrorKind::Unavailable) and stays pending in its map. The file can be longer
    /// by the same size, or by 1 MiB if that is more, because sent batches are removed from time
    /// to time. Waiting batches are in memory as well.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.options.max_bytes = bytes;
        self
    }

    /// Uses this disk instead of that of the machine: for tests.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.options.disk = disk;
        self
    }
}

impl<P: Provider> IntoLayer<P> for Journaled {
    type Layer = Journaled<P>;

    fn into_layer(self, inner: P) -> Journaled<P> {
        Journaled {
            inner: Arc::new(inner),
            options: self.options,
            journals: self.journals,
            drains: self.drains,
        }
    }
}

impl<P: Provider> Journaled<P> {
    fn is_local(&self) -> bool {
        self.options.acknowledge == Acknowledge::Local
    }

    /// The folder of the journals; opens it, and the journals in it, on the first call.
    async fn folder(&self) -> Result<&Arc<Folder>> {
        if self.journals.is_closed.load(Ordering::Relaxed) {
            let message = "this layer was closed; open another";
            return Err(Error::new(ErrorKind::Closed, message));
        }
        self.journals.folder.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<Arc<Folder>> {
        self.options.check(self.inner().capabilities())?;
        let Options { disk, folder, .. } = self.options.clone();
        let opened = blocking(move || {
            let folder = Folder::open(disk, &folder)?;
            let mut journals = Vec::new();
            for path in folder.journals()? {
                let map = MapJournal::map_of(&folder, &path)?;
                journals.push(MapJournal::open(&folder, &map)?);
            }
            Ok((Arc::new(folder), journals))
        });
        let (folder, journals) = opened.await?;
        for journal in journals {
            let state = self.add(&folder, journal);
            state.wake.notify_one();
        }
        Ok(folder)
    }

    fn add(&self, folder: &Arc<Folder>, journal: MapJournal) -> Arc<State> {
        let remote = self.inner.clone() as Arc<dyn Provider>;
        let mut states = self.journals.states.lock();
        let state = states.entry(journal.map.clone()).or_insert_with(|| {
            let state = State::new(remote, folder.clone(), journal);
            Arc::new(state)
        });
        let state = state.clone();
        drop(states);
        self.drains.ensure(&state);
        state
    }

    /// The journal of a map.
    async fn state(&self, map: &MapName) -> Result<Arc<State>> {
        if is_beside(map) {
            let message = "the name `journal-owner` is reserved for the journal; use another name";
            return Err(Error::new(ErrorKind::Invalid, message).on_map(map));
        }
        let folder = self.folder().await?;
        let known = self.journals.states.lock().get(map).cloned();
        if let Some(state) = known {
            self.drains.ensure(&state);
            return Ok(state);
        }
        let (in_folder, name) = (folder.clone(), map.clone());
        let journal = blocking(move || MapJournal::open(&in_folder, &name)).await?;
        Ok(self.add(folder, journal))
    }

    fn states(&self) -> Vec<Arc<State>> {
        self.journals.states.lock().values().cloned().collect()
    }

    /// Waits until the remote has every batch that was acknowledged before this call, of all maps.
    /// Changes that the remote refuses are set aside.
    ///
    /// Cancel-safe: the background tasks continue if the future is dropped.
    ///
    /// # Errors
    ///
    /// The error of the first journal that cannot be sent; the others were tried as well. The
    /// batches are kept, and the background tasks try again.
    pub async fn drain(&self) -> Result<()> {
        self.folder().await?;
        let mut drained = Ok(());
        for state in self.states() {
            drained = drained.and(state.drain().await);
        }
        drained
    }

    /// Returns the state of the journals that were used or found in the folder, by map. Empty
    /// before the first call of the layer.
    pub fn stats(&self) -> BTreeMap<MapName, JournalStats> {
        let states = self.states().into_iter();
        states
            .map(|state| (state.map.clone(), state.stats()))
            .collect()
    }
}

impl<P> Clone for Journaled<P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            options: self.options.clone(),
            journals: self.journals.clone(),
            drains: self.drains.clone(),
        }
    }
}

impl<P: fmt::Debug> fmt::Debug for Journaled<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journaled")
            .field("inner", &self.inner)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
