//! Stores maps in one SQLite file.

use std::{fmt, path::Path, path::PathBuf, sync::Arc};

use async_trait::async_trait;

use self::{
    builder::{Options, SqliteBuilder},
    file::DbFile,
    readers::Readers,
    worker::{Worker, Writer},
};
use super::{Capabilities, Provider};
use crate::{
    batch::{Batch, Committed},
    error::Result,
    heartbeat::Heartbeat,
    incarnation::Incarnation,
    load::{Load, Wanted},
    name::MapName,
};

mod adopted;
mod backup;
pub(crate) mod builder;
mod changes;
mod commit;
mod drops;
mod errors;
mod file;
mod format;
mod inspection;
mod load;
mod meta;
mod own;
mod readers;
mod rows;
mod schema;
mod selection;
mod staged_copy;
mod table;
mod tidying;
mod times;
mod tombstones;
mod worker;
mod writers;

/// Stores maps in one SQLite file, each in a table of its own.
///
/// A commit is one transaction, also over several maps, and is on disk when it
/// returns. Other connections and processes may read and write the
/// file at the same time; commits wait for each other for up to the
/// [busy timeout](SqliteBuilder::busy_timeout). Reads never wait. The file
/// uses SQLite's write-ahead log (`-wal` and `-shm` beside it while it is
/// open), so it belongs on a local disk.
///
/// The map `stock` is in the table `map_stock`, for people and other programs
/// to read: `key`, `value` (text for JSON, a blob for
/// [bytes](crate::Encoding::Bytes)), `updated_at` and `expires_at`
/// (milliseconds since 1970), `revision` (of the commit that last wrote the
/// row) and `schema`. In the name of the table, each byte other than lower-case
/// letters, digits, `-` and `_` is written as `%` and two hex digits. Everything else
/// is stored in tables whose names begin with `persistify_`. A program that changes
/// values in `map_stock` should raise their `revision`; if other programs write to a
/// table, it is better to [adopt](SqliteBuilder::table) it.
///
/// Cloned handles share the file. Dropping the last one closes it;
/// [`close`](Provider::close) returns when it is closed, and reports errors.
///
/// # Cost
///
/// A commit costs one wait for the disk plus O(changes). About every thousand pages, a
/// commit also moves the log into the file. A load of all records streams them and
/// does not block commits. A load of keys, of a page or of changes is in O(result).
/// The first load of changes of a map adds indexes to the file, for which it waits like a
/// commit; from then on writes to the map cost a little more.
///
/// # A file that is deleted or replaced
///
/// If the file, or its `-wal` or `-shm`, is deleted or replaced while it is open,
/// every call fails as `Unusable` and nothing is written, until the file is put back
/// or opened again. This holds on Unix; other systems do not let an open file be
/// deleted.
#[derive(Clone)]
pub struct Sqlite {
    shared: Arc<Shared>,
    heartbeat: Heartbeat,
}

/// The state that all handles share.
pub(super) struct Shared {
    file: DbFile,
    options: Options,
    /// Dropped before the connection that writes, which must be closed last.
    readers: Arc<Readers>,
    worker: Worker,
}

impl Sqlite {
    /// Opens a file with the default options. If it does not exist, it is created,
    /// together with its folders.
    ///
    /// # Errors
    ///
    /// As for [`SqliteBuilder::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open().await
    }

    /// Returns a builder with the default options for a file.
    pub fn builder(path: impl AsRef<Path>) -> SqliteBuilder {
        SqliteBuilder::new(path.as_ref())
    }

    /// [Closes](Provider::close) the file, for all clones. Dropping the last clone does
    /// so as well.
    ///
    /// # Errors
    ///
    /// `Unavailable` or `Unusable`; committed changes are not lost.
    pub async fn close(&self) -> Result<()> {
        Provider::close(self).await
    }

    async fn start(path: PathBuf, options: Options) -> Result<Self> {
        let (worker, file) = Worker::start(path, options.clone()).await?;
        let shared = Arc::new(Shared {
            file,
            options,
            readers: Arc::default(),
            worker,
        });
        let heartbeat = Heartbeat::new();
        Ok(Self { shared, heartbeat })
    }
}

#[async_trait]
impl Provider for Sqlite {
    fn capabilities(&self) -> Capabilities {
        Capabilities::least()
            .with_several_maps()
            .with_conditions()
            .with_deletions()
            .with_durable()
            .with_bytes()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.shared.worker.check_open()?;
        load::load(&self.shared, map, wanted).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let batch = batch.clone();
        let columns = self.shared.options.columns.clone();
        let adopted = &self.shared.options.adopted;
        let maps = batch.maps.iter().map(|part| part.map.clone());
        let adopted: Vec<_> = maps.filter(|map| adopted.contains_key(map)).collect();
        let committed = self.shared.worker.run(move |writer| {
            drops::check_adopted(&writer.connection, &adopted)?;
            let Writer {
                connection,
                tidying,
                ..
            } = writer;
            commit::commit(connection, tidying, &columns, &batch)
        });
        committed.await
    }

    /// Moves the log into the file, as far as no load is reading it, and forgets
    /// writers and tombstones that are old.
    async fn release(&self, _map: &MapName) -> Result<()> {
        let tidied = self.shared.worker.run(|writer| {
            writer.tidying.run(&mut writer.connection)?;
            file::checkpoint(&writer.connection)?;
            Ok(())
        });
        tidied.await
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        let listed = self
            .shared
            .worker
            .run(|writer| schema::maps(&writer.connection));
        listed.await
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        let map = map.clone();
        let dropped = self
            .shared
            .worker
            .run(move |writer| drops::drop_map(&mut writer.connection, &map));
        dropped.await
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        let asked = self.shared.worker.run(|writer| {
            let transaction = schema::begin(&mut writer.connection)?;
            meta::touch(&transaction)?;
            let incarnation = meta::incarnation(&transaction)?;
            transaction.rollback()?;
            Ok(incarnation)
        });
        asked.await
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        Some(self.heartbeat.clone())
    }

    async fn close(&self) -> Result<()> {
        self.shared.readers.close();
        self.shared.worker.close().await
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.shared.file.path;
        f.debug_struct("Sqlite")
            .field("path", path)
            .finish_non_exhaustive()
    }
}
