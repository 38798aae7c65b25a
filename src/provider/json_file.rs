//! Keeps maps as a folder of JSON files.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;

use super::{Capabilities, Provider};
use crate::{
    batch::{Batch, Committed},
    error::{Error, ErrorKind, Result},
    heartbeat::Heartbeat,
    incarnation::Incarnation,
    load::{Load, Wanted},
    name::MapName,
    provider::ledger,
};

mod builder;
mod commit;
mod compaction;
mod cursor;
mod damage;
#[cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "public for tests only")
)]
pub(crate) mod disk;
mod drops;
mod fault;
mod files;
mod frame;
mod index;
mod io;
mod journal;
mod left_over;
mod meta;
mod pairs;
mod recover;
mod replaced;
mod shared;
mod snapshot;
mod store;
mod torn;
mod trailer;
mod values;

pub use builder::JsonFileBuilder;
use cursor::Cursor;
use files::Folder;
use shared::Shared;

/// Keeps maps as a folder of JSON files that people can read, diff and edit.
///
/// A map at rest is `<name>.json`, one flat object of plain values, an entry a
/// line in the order of the keys; and a small `<name>.meta` with what is not
/// for people: revisions, expiries, and a digest that ties the two together.
/// A file that another program or a person wrote opens as it is; nothing is
/// written before the first commit. What is made anew is for this user alone; see
/// [`file_mode`](JsonFileBuilder::file_mode).
///
/// While a map is open, each batch is appended to `<name>.journal` and synced
/// before `commit` returns, so what a commit costs follows the change and not
/// the map. The journal is merged into the other two (compaction) when the map is released,
/// and in the background once it is longer than
/// [`max_journal`](JsonFileBuilder::max_journal) and than the snapshot.
///
/// # Edits by hand
///
/// While the map is closed, the file may be edited: keys that changed have new
/// revisions and no expiry, the others are as they were. To format the file, to
/// sort fields, or to write a number in another way (`1e2` as `100`), changes no
/// value. The
/// [number of its shape](crate::PersistentMapBuilder::schema) is not in the
/// file: a value that was edited keeps its number, one that was added has the
/// highest of that file, and all those of a file without a `.meta` have 0. While the map is
/// open, or after a crash left a journal, it may not: the map says
/// so, and overwrites nothing. A file that is missing beside its `.meta`, or a
/// journal that the `.meta` knows to be in use, is `Corrupt`: put it back; to begin
/// with an empty map, remove the `.meta` too. Where a symbolic link stands in the place of the
/// file, what it leads to is written, and the link stays.
///
/// # Older copies
///
/// If all files of an open map are replaced by an older copy, or removed, the next
/// commit notices, and [the map stops](crate::Rewind) as on any store that has lost
/// commits. Replace `.json`, `.meta` and `.journal` together, and leave the lock file: a
/// part of a copy beside the files of today is `Corrupt`. The incarnation is that of
/// the map, not of the folder; the first commit makes it.
///
/// # After a crash
///
/// What `commit` returned from is there. A batch that was being written is
/// there whole or not at all; if a part of it is found at the end of the
/// journal, it is set aside as `<name>.torn`, with a warning. Anything broken
/// that is followed by whole batches is damage: an error that names the file
/// and the place, and nothing is overwritten.
///
/// # Limits
///
/// - One program at a time: the folder is locked by `.persistify.lock` in it. A
///   crash leaves that file behind, unlocked, and it need not be removed; if it
///   is removed while the folder is open, nothing is written any more until the
///   folder is opened anew.
/// - A batch is for one map; a value is JSON text of 4 GiB at the most.
/// - For each entry of an open map the provider keeps the key and 40 bytes in
///   a sorted index, 100 to 150 bytes in all, but not the value. A load reads
///   the file as a whole once, to index it.
/// - Times are kept to the millisecond.
///
/// Cloned handles share the folder and its lock.
#[derive(Clone, Debug)]
pub struct JsonFile {
    shared: Arc<Shared>,
    heartbeat: Heartbeat,
}

impl JsonFile {
    /// Opens a folder, made if it is missing, with the default options.
    ///
    /// # Errors
    ///
    /// As [`JsonFileBuilder::open`].
    pub async fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::builder(folder).open().await
    }

    /// Options for a folder that is to be opened.
    pub fn builder(folder: impl AsRef<Path>) -> JsonFileBuilder {
        JsonFileBuilder::new(folder.as_ref())
    }

    /// [Ends it](Provider::close), for all clones: compacts what is open and lets
    /// go of the folder. Dropping the last clone lets go of it as well.
    ///
    /// # Errors
    ///
    /// `Unavailable` or `Unusable`; nothing that was committed is lost.
    pub async fn close(&self) -> Result<()> {
        Provider::close(self).await
    }

    fn holding(folder: Folder) -> Self {
        Self {
            shared: Arc::new(Shared::new(folder)),
            heartbeat: Heartbeat::new(),
        }
    }

    /// Works on the files, on a thread where that may take its time. If the
    /// future is dropped, the work goes on to its end.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        blocking(move || work(&shared)).await
    }
}

#[async_trait]
impl Provider for JsonFile {
    fn capabilities(&self) -> Capabilities {
        Capabilities::least().with_conditions().with_durable()
    }

    async fn load<'a>(&'a self, map: &'a MapName, wanted: Wanted) -> Result<Load<'a>> {
        let name = map.clone();
        let known = self.work(move |shared| {
            shared.with(&name, |folder, store| {
                store.keep_up(folder)?;
                let entries = store.index.len() as u64;
                let dropped = shared.dropped(&name).unwrap_or_default();
                Ok((store.last.max(dropped), entries, store.incarnation))
            })
        });
        let (horizon, entries, incarnation) = known.await?;
        let hint = matches!(wanted, Wanted::All).then_some(entries);
        let cursor = Cursor::new(wanted.clone());
        let pages = stream::try_unfold(cursor, move |cursor| self.page(map, cursor));
        let load = Load::new(horizon, pages.boxed()).with_total_hint(hint);
        let load = load.with_incarnation(incarnation);
        load.in_revision_order(&wanted).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        batch.maps.iter().try_for_each(ledger::check_json)?;
        let batch = batch.clone();
        self.work(move |shared| {
            let (answer, is_compaction_due) = shared.commit(&batch)?;
            if let Some(part) = batch.maps.first().filter(|_| is_compaction_due) {
                shared.start_compaction(&part.map);
            }
            Ok(answer)
        })
        .await
    }

    async fn release(&self, map: &MapName) -> Result<()> {
        self.shared.settle(Some(map)).await;
        let map = map.clone();
        self.work(move |shared| shared.release(&map)).await
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        self.work(|shared| shared.maps()).await
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        self.shared.settle(Some(map)).await;
        let map = map.clone();
        self.work(move |shared| shared.drop_map(&map)).await
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        // Each map has one of its own.
        self.work(|shared| shared.ping()).await.map(|()| None)
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        Some(self.heartbeat.clone())
    }

    async fn close(&self) -> Result<()> {
        self.shared.settle(None).await;
        self.work(|shared| shared.close()).await
    }
}

type Page = Vec<crate::record::Record>;

impl JsonFile {
    async fn page(&self, map: &MapName, mut cursor: Cursor) -> Result<Option<(Page, Cursor)>> {
        if cursor.is_done() {
            return Ok(None);
        }
        let map = map.clone();
        let read = self.work(move |shared| {
            let page = shared.with(&map, |folder, store| cursor.next(folder, store))?;
            Ok((page, cursor))
        });
        let (page, cursor) = read.await?;
        Ok((!page.is_empty()).then_some((page, cursor)))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let runtime = Handle::try_current().map_err(|error| {
        let message = "JSON files are read and written on a tokio runtime, and this call was made \
                       outside of one; make it within one (`#[tokio::main]`, `block_on`)";
        Error::new(ErrorKind::Invalid, message).with_source(error)
    })?;
    let done = runtime.spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        let message = "the work on the files was cut short; try again";
        Err(Error::new(ErrorKind::Unavailable, message).with_source(error))
    })
}
