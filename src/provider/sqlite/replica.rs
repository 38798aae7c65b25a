//! A copy of a whole database, which takes its place at once or not at all.

use std::{
    fs::{self, File, OpenOptions},
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
    error::{Error, ErrorKind, Result},
    file::{access, folder},
};

/// How many pages are copied before it is asked whether anyone still waits.
const PAGES_AT_ONCE: i32 = 1_024;

/// Where a copy is made before it is put into its place, in the same folder.
pub(super) struct Replica {
    connection: Connection,
    at: TempPath,
    path: PathBuf,
    /// What it is a copy of.
    like: Option<PathBuf>,
}

impl Replica {
    /// Copies the state that the database has now.
    pub(super) fn of(
        from: &mut Connection,
        path: &Path,
        is_given_up: &dyn Fn() -> bool,
    ) -> Result<Self, Failure> {
        file::make_folder(path, access::PRIVATE)?;
        let at = TempPath::try_from_path(beside(path)?).map_err(|cause| not_placed(path, cause))?;
        make_private(&at).map_err(|cause| not_placed(path, cause))?;
        let like = from.path().map(PathBuf::from);
        let mut connection = Connection::open(&at)?;
        // Nobody sees it before it is whole and on the disk, so it needs neither
        // a log nor a wait for each page.
        connection.pragma_update(None, "journal_mode", "OFF")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        copy(from, &mut connection, is_given_up)?;
        // A file of its own, which opens even where nothing can be written.
        connection.pragma_update(None, "journal_mode", "DELETE")?;
        let path = path.to_owned();
        Ok(Self {
            connection,
            at,
            path,
            like,
        })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Puts the copy into its place, where there may be another file if
    /// `over` says so.
    pub(super) fn settle(self, over: bool) -> Result<(), Failure> {
        let Self {
            connection,
            at,
            path,
            like,
        } = self;
        connection.close().map_err(|(_, cause)| cause)?;
        let place = |cause: io::Error| not_placed(&path, cause);
        finish(&at, &path, like.as_deref()).map_err(place)?;
        let placed = if over {
            remove_logs(&path).map_err(place)?;
            at.persist(&path)
        } else {
            at.persist_noclobber(&path)
        };
        placed.map_err(|failed| place(failed.error))?;
        // So that the new name survives a power loss too.
        folder::sync(folder::parent_of(&path)).map_err(place)?;
        Ok(())
    }
}

/// SQLite would make it for everyone.
fn make_private(at: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, access::PRIVATE);
    options.open(at).map(drop)
}

/// Opens the copy to those who may open what it takes the place of, or else what
/// it is a copy of; and makes it safe on the disk.
fn finish(at: &Path, place: &Path, from: Option<&Path>) -> io::Result<()> {
    let file = File::open(at)?;
    let like = from.filter(|_| !place.exists()).unwrap_or(place);
    access::share_like(&file, like, access::PRIVATE)?;
    file.sync_all()
}

/// In one transaction: what is committed meanwhile is not in the copy, and does
/// not make it begin anew.
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
            return Err(Error::new(ErrorKind::Unavailable, "nobody waits for the copy").into());
        }
    }
    Ok(())
}

/// A name that is not taken, and never will be.
fn beside(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        let message = format!("\"{}\" is not the path of a file; name one", path.display());
        return Err(Error::new(ErrorKind::Invalid, message));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{:032x}", rand::random::<u128>()));
    Ok(path.with_file_name(hidden))
}

/// That no one has the database at that path open, here or in another process.
/// A log that a crash left of it is folded into it. No file is fine too.
///
/// # Errors
///
/// `Invalid` if it is in use. Whether it is a database at all is not known
/// before: then SQLite's error.
pub(super) fn check_free(path: &Path) -> Result<(), Failure> {
    file::check_files(path)?;
    if !path.exists() {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::ZERO)?;
    // With a write-ahead log, everyone who has the file open holds a lock that
    // keeps this one from being had.
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

/// The logs of a file that is about to be replaced: SQLite would take them for
/// those of the new one.
fn remove_logs(path: &Path) -> io::Result<()> {
    for log in logs(path) {
        match fs::remove_file(&log) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
    }
    Ok(())
}

/// Where SQLite keeps the logs of a file.
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
