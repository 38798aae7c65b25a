//! The thread that owns the connection that writes.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    builder::Options, errors::Failure, file::DbFile, format, inspection::inspect, tidying::Tidying,
};
use crate::error::{Error, ErrorKind, Result};

/// A handle to the thread. When it is closed or dropped, the thread ends after all
/// earlier requests.
#[derive(Debug)]
pub(super) struct Worker {
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    path: PathBuf,
}

/// The state of the thread.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) file: DbFile,
    pub(super) tidying: Tidying,
}

/// A request to the thread. It returns the writer for the next one; `None` ends the
/// thread.
type Request = Box<dyn FnOnce(Writer) -> Option<Writer> + Send>;

impl Worker {
    /// Opens the file on a thread of its own.
    pub(super) async fn start(path: PathBuf, options: Options) -> Result<(Self, DbFile)> {
        let (requests, received) = mpsc::channel();
        let (opened, file) = oneshot::channel();
        let at = path.clone();
        let thread = thread::Builder::new().name("persistify-sqlite".into());
        let started = thread.spawn(move || {
            let writer = open(&at, &options).map_err(|failure| failure.explained(&at));
            match writer {
                Ok(writer) => {
                    // If the future was dropped, the thread ends.
                    if opened.send(Ok(writer.file.clone())).is_ok() {
                        serve(writer, &received);
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        });
        started.map_err(|cause| no_thread(&path).with_source(cause))?;
        let file = file
            .await
            .map_err(|cause| ended(&path).with_source(cause))??;
        let requests = Mutex::new(Some(requests));
        Ok((Self { requests, path }, file))
    }

    /// Runs this work on the thread, after all earlier requests. Once polled, dropping the
    /// future cancels the wait, not the work.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let answer = self.ask(work)?.await;
        answer.map_err(|cause| ended(&self.path).with_source(cause))?
    }

    /// Like [`run`](Self::run), but blocks the calling thread.
    pub(super) fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let answer = self.ask(work)?.blocking_recv();
        answer.map_err(|cause| ended(&self.path).with_source(cause))?
    }

    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, Failure> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T>>> {
        let (answer, answered) = oneshot::channel();
        let request: Request = Box::new(move |mut writer| {
            let checked = writer.file.check().map_err(Failure::Provider);
            let done = checked.and_then(|()| work(&mut writer));
            // If the future was dropped, nothing reads the answer.
            drop(answer.send(done.map_err(|failure| failure.explained(&writer.file.path))));
            Some(writer)
        });
        let requests = self.requests.lock();
        let requests = requests.as_ref().ok_or_else(|| closed(&self.path))?;
        // A thread that has ended does not apply the request.
        let sent = requests.send(request);
        sent.map_err(|_| ended(&self.path).nothing_applied())?;
        Ok(answered)
    }

    /// # Errors
    ///
    /// `Closed` if it was closed.
    pub(super) fn check_open(&self) -> Result<()> {
        match *self.requests.lock() {
            Some(_) => Ok(()),
            None => Err(closed(&self.path)),
        }
    }

    /// Ends the thread, after all earlier requests.
    pub(super) async fn close(&self) -> Result<()> {
        let Some(requests) = self.requests.lock().take() else {
            return Ok(());
        };
        let (answer, answered) = oneshot::channel();
        let request: Request = Box::new(move |writer| {
            drop(answer.send(close(writer)));
            None
        });
        match requests.send(request) {
            Ok(()) => answered
                .await
                .map_err(|cause| ended(&self.path).with_source(cause))?,
            // The thread has already ended, and its connection is closed.
            Err(_) => Ok(()),
        }
    }
}

fn open(path: &Path, options: &Options) -> Result<Writer, Failure> {
    let (file, mut connection) = DbFile::open(path, options)?;
    for (map, table) in &options.adopted {
        inspect(&connection, map, table, &options.columns)
            .map_err(|failure| failure.on_map(map))?;
    }
    format::prepare(&mut connection, options)?;
    let tidying = Tidying::new(options.tombstones_kept);
    Ok(Writer {
        connection,
        file,
        tidying,
    })
}

fn serve(mut writer: Writer, requests: &mpsc::Receiver<Request>) {
    while let Ok(request) = requests.recv() {
        match request(writer) {
            Some(next) => writer = next,
            None => return,
        }
    }
}

/// The last connection that closes moves the log into the file.
fn close(writer: Writer) -> Result<()> {
    let Writer {
        connection, file, ..
    } = writer;
    let closed = connection
        .close()
        .map_err(|(_, cause)| Failure::database(cause));
    closed.map_err(|failure| failure.explained(&file.path))
}

fn closed(path: &Path) -> Error {
    let message = format!(
        "the SQLite file {} was closed; open it again",
        path.display()
    );
    Error::new(ErrorKind::Closed, message)
}

fn ended(path: &Path) -> Error {
    let message = format!(
        "the thread that writes to the SQLite file {} has ended; close the file and open it again",
        path.display()
    );
    Error::new(ErrorKind::Unavailable, message)
}

fn no_thread(path: &Path) -> Error {
    let message = format!(
        "no thread can be started for the SQLite file {}; try again",
        path.display()
    );
    Error::new(ErrorKind::Unavailable, message).nothing_applied()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use crate::{
        Batch, BatchId, Change, ErrorKind, MapBatch, MapName, Payload, Provider, Revision, Sqlite,
        Wanted, WriterId,
    };

    async fn open() -> (tempfile::TempDir, Sqlite) {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(folder.path().join("a.db")).await.unwrap();
        (folder, sqlite)
    }

    fn large(sequence: u64) -> Batch {
        let rows = (0..1_000).map(|n| {
            let payload = Payload::json(format!("\"{}\"", "x".repeat(1_000)));
            Change::put(n.to_string(), payload, None)
        });
        let map = MapBatch::new(MapName::new("m").unwrap(), rows.collect());
        let id = BatchId::new(WriterId::new(1), sequence);
        Batch::new(id, Revision::ZERO, SystemTime::now(), [map])
    }

    async fn limit(sqlite: &Sqlite, pages: i64) {
        let limited = sqlite.shared.worker.run(move |writer| {
            let sql = format!("PRAGMA max_page_count = {pages}");
            Ok(writer.connection.query_row(&sql, [], |_| Ok(()))?)
        });
        limited.await.unwrap();
    }

    /// SQLite's page limit stands in for a full disk: it fails in the same way.
    #[tokio::test]
    async fn a_full_disk_is_unusable_until_there_is_room() {
        let (_folder, sqlite) = open().await;
        let map = MapName::new("m").unwrap();
        limit(&sqlite, 30).await;
        let batch = large(1);
        let failed = sqlite.commit(&batch).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
        assert!(failed.keys().is_empty());
        assert!(!failed.may_have_applied());
        let load = sqlite.load(&map, Wanted::All).await.unwrap();
        assert!(load.into_records().await.unwrap().is_empty());
        limit(&sqlite, 1_000_000).await;
        sqlite.commit(&batch).await.unwrap();
        let load = sqlite.load(&map, Wanted::All).await.unwrap();
        assert_eq!(load.into_records().await.unwrap().len(), 1_000);
    }

    /// `query_only` stands in for a disk that was mounted read-only.
    #[tokio::test]
    async fn a_ping_finds_out_that_nothing_can_be_written() {
        let (_folder, sqlite) = open().await;
        for (only_reads, kind) in [(true, Some(ErrorKind::Unusable)), (false, None)] {
            let set = sqlite.shared.worker.run(move |writer| {
                let set = writer
                    .connection
                    .pragma_update(None, "query_only", only_reads);
                Ok(set?)
            });
            set.await.unwrap();
            let failed = sqlite.ping().await.err();
            assert_eq!(failed.map(|error| error.kind()), kind);
        }
    }

    #[tokio::test]
    async fn a_thread_that_died_is_an_error_and_no_wait() {
        let (_folder, sqlite) = open().await;
        let died = sqlite.shared.worker.run::<()>(|_| panic!("on purpose"));
        let died = died.await.unwrap_err();
        assert_eq!(died.kind(), ErrorKind::Unavailable);
        assert!(died.may_have_applied());
        // The thread may still be ending.
        let failed = sqlite.commit(&large(1)).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unavailable);
        sqlite.close().await.unwrap();
    }
}
