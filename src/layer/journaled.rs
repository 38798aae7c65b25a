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
/// to the journal. Everything that was acknowledged reaches the remote once it is back, in
/// order and once, also after a crash of the program.
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
/// What the background flush of a map commits, which includes `insert_and_save` and `flush`:
/// batches of one map without conditions. A conditional or atomic commit, or one of several
/// maps, needs an answer of the remote: the journals of its maps are drained first, then it is
/// passed on. If they cannot be drained, it fails as [`Unavailable`](ErrorKind::Unavailable),
/// and nothing of it was applied.
///
/// # One owner a map
///
/// Opening a map makes this folder the owner of the map: a row in the map
/// `<map>/journal-owner` of the remote, which every drained batch moves forward in the same
/// commit. A process with another folder that opens the map replaces the owner. The old one
/// does not send its journal over newer values: it keeps it, its saves fail as
/// [`Unusable`](ErrorKind::Unusable), and [`stats`](Self::stats) says
/// [`Superseded`](ErrorKind::Superseded). The same happens, as
/// [`Rewound`](ErrorKind::Rewound), if the remote has lost batches that it had acknowledged.
/// A person decides: [`export`](Self::export), [`discard`](Self::discard) or
/// [`force`](Self::force).
///
/// The first open of a map needs a remote that takes commits. Later ones need one that loads,
/// such as a standby: the journal is laid over the records that are loaded. Pages and changes
/// cannot be loaded before the journal has reached the remote. The journals of maps that are
/// not opened again are sent as well, once the layer is used.
///
/// # Refused changes
///
/// The remote may refuse a change that was acknowledged. It is set aside in
/// `<map>.refused.jsonl` in the folder, logged as an error and counted in
/// [`stats`](Self::stats); the rest of its batch goes on. The map keeps the value in memory.
///
/// # When not to use it
///
/// Not for maps that several processes write: each would replace the other as the owner.
/// Not where an acknowledged change must be visible to other readers of the store at once.
/// Health of a map stays `Healthy` while the remote is down: watch [`stats`](Self::stats).
///
/// # Order among layers
///
/// The journal holds keys and values as plain text, in files that only this user can read.
/// Encryption therefore goes above it: `remote.layer(Journaled::new(..)).layer(encrypted)`. Over
/// a provider that encrypts, the first load fails as [`Invalid`](ErrorKind::Invalid). The remote
/// must support conditions and batches of several maps; otherwise it is
/// [`Unsupported`](ErrorKind::Unsupported).
///
/// # Cost
///
/// A commit writes the batch to the journal, as a line of JSON, and syncs it; the remote
/// commits it later, with one more row. What is pending is also in memory.
///
/// Cancel safety: dropping the future of a commit does not stop the write to the journal; the
/// repeated batch is acknowledged once.
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
    /// [`ProviderExt::layer`](crate::ProviderExt::layer). The folder is created and locked by
    /// the first use.
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

    /// Sets the maximum size in bytes of what waits for the remote, for each map: 256 MiB by
    /// default, at least 64 KiB. A save beyond it fails as
    /// [`Unavailable`](ErrorKind::Unavailable) and stays pending in its map. The file can be
    /// twice as long, and what waits is in memory as well.
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

    /// Waits until everything is in the remote that was acknowledged before this call.
    ///
    /// # Errors
    ///
    /// The error of the first journal that cannot be sent; the others were tried as well.
    pub async fn drain(&self) -> Result<()> {
        self.folder().await?;
        let mut drained = Ok(());
        for state in self.states() {
            drained = drained.and(state.drain().await);
        }
        drained
    }

    /// The state of the journals that were used or found in the folder, by map.
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
