//! The file itself: opening connections to it, and detecting that it was replaced.

use std::{
    fs, io, iter,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};

use super::{
    builder::{Options, Synchronous},
    errors::{Failure, is_busy},
    rows,
};
use crate::{
    error::{Error, ErrorKind, Result},
    file::{
        self, access,
        folder::{self, parent_of},
    },
};

/// The suffixes of the logs that SQLite keeps beside a file.
pub(super) const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The number of symbolic links that operating systems follow.
const MAX_LINKS: usize = 40;

/// Measured: with a cache larger than the default, large commits are up to twice as
/// fast.
const WRITE_CACHE_KIB: i64 = 64 * 1024;

/// SQLite truncates the log to this length, in bytes, when it starts to overwrite it. The
/// log gets longer only while a long read keeps its pages from being moved into the file;
/// by SQLite's default, a commit that leaves a long log moves them.
const MAX_LOG_KEPT: i64 = 64 * 1024 * 1024;

/// More than the statements of a batch over a few dozen maps.
const CACHED_STATEMENTS: usize = 256;

/// An open file.
#[derive(Clone, Debug)]
pub(super) struct DbFile {
    pub(super) path: PathBuf,
    /// The file itself, and the log beside it.
    found: Vec<(PathBuf, Identity)>,
}

impl DbFile {
    /// Opens the connection that writes. A missing file is created.
    pub(super) fn open(path: &Path, options: &Options) -> Result<(Self, Connection), Failure> {
        make_folder(path, options.file_mode)?;
        check_files(path)?;
        make_new(path, options.file_mode).map_err(|cause| not_made(path, cause))?;
        let connection = connect(path, options, OpenFlags::SQLITE_OPEN_CREATE)?;
        check_encoding(&connection, path)?;
        use_wal(&connection, path, options.busy_timeout)?;
        let synchronous = match options.synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "cache_size", -WRITE_CACHE_KIB)?;
        connection.pragma_update(None, "journal_size_limit", MAX_LOG_KEPT)?;
        check_writable(&connection, options.busy_timeout)?;
        // The first read creates the files of the log, which exist for as long as this
        // connection is open.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let file = Self {
            path: path.to_owned(),
            found: found_at(path).map_err(|cause| gone(path).with_source(cause))?,
        };
        Ok((file, connection))
    }

    /// Opens a connection for reading.
    pub(super) fn reader(&self, options: &Options) -> Result<Connection, Failure> {
        self.check()?;
        Ok(connect(&self.path, options, OpenFlags::empty())?)
    }

    /// Checks that the path still leads to the open file, and to its log. Writes to a file
    /// that was deleted are lost when the program ends, and other programs that open the
    /// path do not see them.
    ///
    /// # Errors
    ///
    /// `Unusable` if it leads elsewhere.
    pub(super) fn check(&self) -> Result<()> {
        for (path, identity) in &self.found {
            match identity_of(path) {
                Ok(found) if found == *identity => {}
                Ok(_) => return Err(gone(path)),
                Err(cause) => return Err(gone(path).with_source(cause)),
            }
        }
        Ok(())
    }
}

/// Moves pages from the log into the file, except those that other connections still
/// read. Does nothing if another connection is already doing so.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

fn found_at(path: &Path) -> io::Result<Vec<(PathBuf, Identity)>> {
    // SQLite follows symbolic links first.
    let real = fs::canonicalize(path)?;
    let all = [
        path.to_owned(),
        beside(&real, "-wal"),
        beside(&real, "-shm"),
    ];
    let found = all.map(|path| identity_of(&path).map(|identity| (path, identity)));
    found.into_iter().collect()
}

/// The path of a file that SQLite keeps beside the database.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(end);
    beside.into()
}

fn not_made(path: &Path, cause: io::Error) -> Error {
    let message = format!(
        "the SQLite file {} cannot be created; check that its folder can be written to",
        path.display()
    );
    Error::new(ErrorKind::Unusable, message).with_source(cause)
}

fn gone(path: &Path) -> Error {
    let message = format!(
        "{}, of a SQLite file that is open, was deleted or replaced; put it back, or close the file here and open it again",
        path.display()
    );
    Error::new(ErrorKind::Unusable, message)
}

pub(super) fn make_folder(path: &Path, file_mode: u32) -> Result<()> {
    let folder = parent_of(path);
    folder::make(folder, file_mode).map_err(|cause| {
        let message = format!(
            "the folder {} for the SQLite file cannot be created; check its path and permissions",
            folder.display()
        );
        Error::new(ErrorKind::Unusable, message).with_source(cause)
    })
}

/// Checks that there is a regular file or nothing at the path, and at those of SQLite's
/// logs beside it: SQLite would block on a FIFO.
///
/// SQLite opens the files itself, so another program could still put a FIFO there after
/// the check. That takes the right to write to the folder, and so to the file.
///
/// # Errors
///
/// `Unusable` if there is anything else.
pub(super) fn check_files(path: &Path) -> Result<()> {
    // SQLite keeps the logs beside the target of a link.
    let real = end_of_links(path);
    let logs = LOGS.map(|end| beside(&real, end));
    for path in iter::once(path).chain(logs.iter().map(PathBuf::as_path)) {
        file::check(path).map_err(|cause| {
            let message = format!(
                "{} cannot be opened as a SQLite file, or as the log of one; move away what is there",
                path.display()
            );
            Error::new(ErrorKind::Unusable, message).with_source(cause)
        })?;
    }
    Ok(())
}

/// Creates an empty file of that mode if there is none. SQLite gives its logs the mode
/// and the owner of the file.
///
/// The file is created under another name and renamed once it is closed. Closing a file
/// that SQLite has open in this process would release SQLite's locks.
fn make_new(path: &Path, mode: u32) -> io::Result<()> {
    let path = end_of_links(path);
    if path.exists() {
        return Ok(());
    }
    let temp = access::temporary(parent_of(&path))?;
    access::set_mode(temp.as_file(), mode)?;
    match temp.into_temp_path().persist_noclobber(&path) {
        // Another process created it in the meantime.
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        placed => placed.map_err(|failed| failed.error),
    }
}

/// Follows the links at that path, also if they lead to nothing; after too many, returns
/// the last one.
fn end_of_links(path: &Path) -> PathBuf {
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&at) {
            Ok(to) => at = parent_of(&at).join(to),
            Err(_) => break,
        }
    }
    at
}

fn connect(path: &Path, options: &Options, more: OpenFlags) -> rusqlite::Result<Connection> {
    // Without the flag for URIs, `file:a` is an ordinary name. A connection is used by
    // one thread at a time, so it needs no mutex.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(options.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    rows::add_digest(&connection)?;
    Ok(connection)
}

/// SQLite compares keys by their UTF-8 bytes only if the file stores text as UTF-8.
fn check_encoding(connection: &Connection, path: &Path) -> Result<(), Failure> {
    let encoding: String = connection.pragma_query_value(None, "encoding", |row| row.get(0))?;
    if encoding == "UTF-8" {
        return Ok(());
    }
    let message = format!(
        "the SQLite file {} stores text as {encoding}, which sorts keys in another order; copy it to a file in UTF-8",
        path.display()
    );
    Err(Error::new(ErrorKind::Unusable, message).into())
}

fn use_wal(connection: &Connection, path: &Path, timeout: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    loop {
        let mode = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match mode {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => return Err(no_wal(path, &mode).into()),
            // The busy timeout does not apply when two processes do this at once.
            Err(cause) if is_busy(&cause) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(cause) => return Err(cause.into()),
        }
    }
}

/// Checks that the file can be written to: SQLite silently opens a read-only file for
/// reading.
///
/// It tries a write and rolls it back. SQLite refuses the write before it takes a lock, so
/// this does not wait for other writers. (There is a function for it, but its signature
/// differs between the supported versions of rusqlite.)
fn check_writable(connection: &Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    let written = connection
        .unchecked_transaction()
        .and_then(|writing| writing.pragma_update(None, "user_version", 0));
    connection.busy_timeout(busy_timeout)?;
    match written {
        Err(cause) if is_busy(&cause) => Ok(()),
        written => written,
    }
}

fn no_wal(path: &Path, mode: &str) -> Error {
    let message = format!(
        "the SQLite file {} cannot be switched from the journal mode {mode:?} to a write-ahead log; keep it on a local disk that this program may write to",
        path.display()
    );
    Error::new(ErrorKind::Unusable, message)
}

/// The numbers of the device and of the file on it.
#[cfg(unix)]
type Identity = (u64, u64);

#[cfg(unix)]
fn identity_of(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// On other systems an open file can be neither deleted nor replaced.
#[cfg(not(unix))]
type Identity = ();

#[cfg(not(unix))]
fn identity_of(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(drop)
}
