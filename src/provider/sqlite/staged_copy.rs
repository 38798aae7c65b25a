//! A copy of a whole database that is moved to its place only when it is complete.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};
use tempfile::TempPath;

use super::{
    errors::{Failure, is_busy},
    file,
};
use crate::{
    error::{Error, ErrorKind},
    file::{access, folder},
};

/// The number of pages copied between two checks for cancellation.
const PAGES_AT_ONCE: i32 = 1_024;

/// A copy under a temporary name, in the folder of its place.
pub(super) struct StagedCopy {
    connection: Connection,
    at: TempPath,
    path: PathBuf,
    /// The path of the database that was copied.
    original: Option<PathBuf>,
}

impl StagedCopy {
    /// Copies the current state of the database.
    pub(super) fn of(
        from: &mut Connection,
        path: &Path,
        is_given_up: &dyn Fn() -> bool,
    ) -> Result<Self, Failure> {
        file::make_folder(path, access::PRIVATE)?;
        let at = access::temporary(folder::parent_of(path));
        let at = at
            .map_err(|cause| not_placed(path, cause))?
            .into_temp_path();
        let mut connection = Connection::open(&at)?;
        // It is used only once it is complete and on disk, so it needs neither a log nor
        // a wait for each page.
        connection.pragma_update(None, "journal_mode", "OFF")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        copy(from, &mut connection, is_given_up)?;
        // Without a write-ahead log it opens even where nothing can be written.
        connection.pragma_update(None, "journal_mode", "DELETE")?;
        Ok(Self {
            connection,
            at,
            path: path.to_owned(),
            original: from.path().map(PathBuf::from),
        })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Moves the copy to its place; with `over`, it may replace another file.
    pub(super) fn settle(self, over: bool) -> Result<(), Failure> {
        let Self {
            connection,
            at,
            path,
            original,
        } = self;
        connection.close().map_err(|(_, cause)| cause)?;
        let settle = || {
            finish(&at, &path, original.as_deref())?;
            if over {
                remove_logs(&path)?;
                at.persist(&path)
            } else {
                at.persist_noclobber(&path)
            }
            .map_err(|failed| failed.error)?;
            // Makes the new name survive a power loss.
            folder::sync(folder::parent_of(&path))
        };
        settle().map_err(|cause| not_placed(&path, cause).into())
    }
}

/// Gives the copy the mode and owner of the file that it replaces, or else of the
/// original, and syncs it to disk.
fn finish(at: &Path, place: &Path, original: Option<&Path>) -> io::Result<()> {
    let file = File::open(at)?;
    let like = original.filter(|_| !place.exists()).unwrap_or(place);
    access::share_like(&file, like, access::PRIVATE)?;
    file.sync_all()
}

/// Copies in one transaction: commits in the meantime are not in the copy, and do not
/// restart it.
fn copy(
    from: &mut Connection,
    to: &mut Connection,
    is_given_up: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let state = from.transaction()?;
    // The first read fixes the state.
    state.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let copying = Backup::new(&state, to)?;
    while copying.step(PAGES_AT_ONCE)? != StepResult::Done {
        if is_given_up() {
            return Err(Error::new(ErrorKind::Unavailable, "the copy was given up").into());
        }
    }
    Ok(())
}

/// Checks that the database at that path is not open, here or in another process. A log
/// that a crash left is moved into it. A missing file passes.
///
/// # Errors
///
/// `Invalid` if it is in use, or SQLite's error if it is not a database.
pub(super) fn check_free(path: &Path) -> Result<(), Failure> {
    file::check_files(path)?;
    if !path.exists() {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::ZERO)?;
    // With a write-ahead log, each connection to the file holds a lock that conflicts
    // with this one.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    match connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK") {
        Err(cause) if is_busy(&cause) => Err(in_use(path).with_source(cause).into()),
        done => Ok(done?),
    }
}

fn in_use(path: &Path) -> Error {
    let message = format!(
        "the SQLite file {} is open, in this program or in another; close it there first",
        path.display()
    );
    Error::new(ErrorKind::Invalid, message)
}

/// Removes the logs of a file that is about to be replaced: SQLite would use them with the
/// new one.
fn remove_logs(path: &Path) -> io::Result<()> {
    for log in logs(path) {
        match fs::remove_file(&log) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
    }
    Ok(())
}

/// The paths of the logs that SQLite keeps beside a file.
pub(super) fn logs(path: &Path) -> impl Iterator<Item = PathBuf> {
    file::LOGS.into_iter().map(|end| file::beside(path, end))
}

fn not_placed(path: &Path, cause: io::Error) -> Error {
    if cause.kind() == io::ErrorKind::AlreadyExists {
        return exists(path);
    }
    let message = format!(
        "the copy cannot be put at {}; check that its folder can be written to",
        path.display()
    );
    Error::new(ErrorKind::Unusable, message).with_source(cause)
}

pub(super) fn exists(path: &Path) -> Error {
    let message = format!(
        "{} is there already; move it away, or replace it with `restore_over`",
        path.display()
    );
    Error::new(ErrorKind::Invalid, message)
}
