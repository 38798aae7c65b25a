//! Maps as JSON files in a folder.

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
};

mod appending;
mod builder;
mod changes;
mod commit;
mod compaction;
mod cursor;
mod drops;
mod files;
mod format;
mod in_order;
mod index;
mod opening;
mod replay;
mod shared;
mod store;
mod values;

pub use builder::JsonFileBuilder;
use cursor::Cursor;
use files::Folder;
use shared::Shared;

/// Stores maps in a folder of JSON files that people can read, diff and edit.
///
/// A closed map is two files. `<name>.json` is one flat object of plain values, with an
/// entry per line, sorted by key. `<name>.meta` has the rest: revisions, expiries, schema
/// versions, and a digest that ties the two files together. A file of another program or
/// of a person opens as it is, and nothing is written before the first commit. New files
/// are private to this user; see [`file_mode`](JsonFileBuilder::file_mode).
///
/// While a map is open, each batch is appended to `<name>.journal` and synced before
/// `commit` returns, so the cost of a commit depends on the size of the batch and not on
/// that of the map. Compaction merges the journal into the other two files: when the map is
/// released, and in the background once the journal is longer than
/// [`max_journal`](JsonFileBuilder::max_journal) and than the `.json` file.
///
/// # Edits by hand
///
/// Edit the file only while the map is closed. Changed keys get new revisions and no expiry;
/// the others stay as they were. Formatting the file, sorting fields or writing a number
/// in another way (`1e2` as `100`) changes no value. A changed value keeps its
/// [schema version](crate::PersistentMapBuilder::schema), a new one gets the highest of the
/// file, and all values of a file without a `.meta` have version 0.
///
/// Values of [bytes](crate::Encoding::Bytes) are strings of base64 (with padding), and the
/// `.meta` file says for which keys. Editing such a string changes the bytes. If it is no longer
/// base64, the value becomes the JSON that the file has; so does a value that the `.meta` file
/// does not describe.
///
/// Edits while the map is open, or after a crash left a journal, are reported as `Corrupt`, and
/// nothing is overwritten. So is a missing `.json` file beside its `.meta`, and a missing journal
/// that the `.meta` marks as in use: put the file back. To start with an empty map, remove the
/// `.meta` too. If the file is a symbolic link, its target is written, and the link stays.
///
/// # Older copies
///
/// If all files of an open map are replaced by an older copy, or removed, the next commit
/// detects it, and [the map stops](crate::Rewind) as on any store that has lost commits.
/// Replace `.json`, `.meta` and `.journal` together, and leave the lock file; a part of a
/// copy beside current files is `Corrupt`. Each map has an incarnation of its own, which its
/// first commit creates.
///
/// # After a crash
///
/// Every batch for which `commit` returned `Ok` is there. A batch that was being written is there
/// as a whole or not at all; an incomplete one at the end of the journal is set aside as
/// `<name>.torn`, with a warning. A broken part that is followed by complete batches is damage:
/// the error names the file and the offset, and nothing is overwritten.
///
/// # Limits
///
/// - One process at a time: the folder is locked by `.persistify.lock` in it. A crash leaves
///   that file behind, unlocked, and it need not be removed. If it is removed while the folder
///   is open, nothing is written any more until the folder is opened again.
/// - A batch is for one map. The text of a value is at most 4 GiB long.
/// - Memory: for each entry of an open map, the key and 40 bytes in a sorted index, 100 to 150
///   bytes in all; values are not kept. A load reads the file once to build the index.
/// - Deleted entries leave tombstones, for readers that follow the changes of a map; see
///   [`keep_tombstones`](JsonFileBuilder::keep_tombstones) for their duration and cost.
///   Entries that were removed by hand leave none: such readers load the whole map again.
/// - Times are stored to the millisecond.
///
/// Clones share the folder and its lock.
#[derive(Clone, Debug)]
pub struct JsonFile {
    shared: Arc<Shared>,
    heartbeat: Heartbeat,
}

impl JsonFile {
    /// Opens a folder with the default options. Creates it if it is missing.
    ///
    /// # Errors
    ///
    /// As for [`JsonFileBuilder::open`].
    pub async fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::builder(folder).open().await
    }

    /// Returns the options for opening a folder.
    pub fn builder(folder: impl AsRef<Path>) -> JsonFileBuilder {
        JsonFileBuilder::new(folder.as_ref())
    }

    /// [Closes](Provider::close) all clones: compacts all journals and unlocks the folder.
    /// Dropping the last clone unlocks it as well.
    ///
    /// # Errors
    ///
    /// `Unavailable` or `Unusable`. The folder is unlocked even then, and no commit is
    /// lost: a journal that was not compacted is read at the next open.
    pub async fn close(&self) -> Result<()> {
        Provider::close(self).await
    }

    fn holding(folder: Folder) -> Self {
        Self {
            shared: Arc::new(Shared::new(folder)),
            heartbeat: Heartbeat::new(),
        }
    }

    /// Works on the files on a thread for blocking calls. Dropping the future does not stop
    /// the work.
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
        Capabilities::least()
            .with_conditions()
            .with_deletions()
            .with_durable()
            .with_bytes()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let name = map.clone();
        if let Wanted::Changed { after, limit } = wanted {
            let changes = self.work(move |shared| shared.changes(&name, after, limit));
            return changes.await;
        }
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
        let cursor = Cursor::new(wanted);
        let map = map.clone();
        let pages = stream::try_unfold(cursor, move |cursor| self.page(map.clone(), cursor));
        let load = Load::new(horizon, pages.boxed()).with_total_hint(hint);
        Ok(load.with_incarnation(incarnation))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
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
        let map = map.clone();
        self.work(move |shared| shared.release(&map)).await
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        self.work(|shared| shared.maps()).await
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        let map = map.clone();
        self.work(move |shared| shared.drop_map(&map)).await
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        // Each map has an incarnation of its own.
        self.work(|shared| shared.ping()).await.map(|()| None)
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        Some(self.heartbeat.clone())
    }

    async fn close(&self) -> Result<()> {
        self.work(|shared| shared.close()).await
    }
}

type Page = Vec<crate::record::Record>;

impl JsonFile {
    async fn page(&self, map: MapName, mut cursor: Cursor) -> Result<Option<(Page, Cursor)>> {
        if cursor.is_done() {
            return Ok(None);
        }
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
        let message = "the work on the files was interrupted; try again";
        Err(Error::new(ErrorKind::Unavailable, message).with_source(error))
    })
}
