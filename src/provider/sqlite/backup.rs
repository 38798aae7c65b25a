//! Backups of a file, and going back to one.

use std::{iter, path::Path, sync::Arc, thread};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::{
    Shared, Sqlite,
    builder::checked_path,
    errors::Failure,
    file, format, meta,
    staged_copy::{StagedCopy, check_free, exists, logs},
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::Revision,
};

/// # Backups
impl Sqlite {
    /// Writes a copy of the file, with all its maps, to that path; a file with
    /// maps that is there, such as an older backup, is replaced.
    ///
    /// It has everything that was committed before the call. Maps may be read and
    /// written meanwhile: commits do not wait for the copy and are not in it.
    /// (SQLite's log grows by them until the copy is done.) The copy takes its
    /// place at once, when it is whole and on the disk; it is a database like any
    /// other, in one file.
    ///
    /// Dropping the future while pages are copied gives the copy up, and the path
    /// is as it was. A whole copy still takes its place.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistify::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = |name: &str| folder.path().join(name);
    /// use persistify::{PersistentMap, Sqlite};
    ///
    /// let file = Sqlite::open(path("shop.db")).await?;
    /// let stock: PersistentMap<u32> = PersistentMap::builder(file.clone(), "stock").open().await?;
    /// stock.insert_and_save("apple", 3).await?;
    /// file.backup(path("monday.db")).await?;
    ///
    /// Sqlite::restore(path("monday.db"), path("again.db")).await?;
    /// let again = Sqlite::open(path("again.db")).await?;
    /// let again: PersistentMap<u32> = PersistentMap::builder(again, "stock").open().await?;
    /// assert_eq!(again.get("apple"), Some(3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - `Invalid`: what is at the path is open, this very file for one, or is
    ///   no database, or one of another program.
    /// - `Unusable`: the path cannot be written to, or there is no room.
    /// - `Corrupt`: this file is damaged.
    /// - `Closed`: it was closed.
    ///
    /// In all of them, what is at the path is as it was.
    pub async fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        self.shared.worker.check_open()?;
        let path = checked_path(path.as_ref())?;
        let shared = self.shared.clone();
        on_a_thread(move |is_given_up| back_up(shared, &path, is_given_up)).await
    }

    /// Makes a file of a [backup](Self::backup), at a path where there is none
    /// yet; then [open](Self::open) it.
    ///
    /// The backup is checked first, and stays as it is. Revisions do not go
    /// back: whatever is committed to the file has a higher one than anything
    /// committed before, also after the backup was made.
    ///
    /// # Errors
    ///
    /// - `Invalid`: there is a file at the path, or the log of one that was
    ///   deleted; there is no backup, or it was not made of a file with maps.
    /// - `Corrupt`: the backup is no SQLite database, or a damaged one.
    /// - `Unusable`: the path cannot be written to, there is no room, or the
    ///   backup is of a later version of this library.
    ///
    /// In all of them, what is at the path is as it was.
    pub async fn restore(backup: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        restore(backup.as_ref(), path.as_ref(), false).await
    }

    /// Like [`restore`](Self::restore), but replaces a file that is there: its
    /// content is gone for good. The file may be damaged. It must not be opened
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// As for [`restore`](Self::restore); and `Invalid` if the file is open, in
    /// this program or in another.
    pub async fn restore_over(backup: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        restore(backup.as_ref(), path.as_ref(), true).await
    }
}

/// Does work that may take long, on a thread of its own. The work is told when the
/// future was dropped.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn() -> bool) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (answer, answered) = oneshot::channel();
    let thread = thread::Builder::new().name("persistify-sqlite-copy".into());
    let started = thread.spawn(move || {
        let done = work(&|| answer.is_closed());
        // If the future was dropped, the outcome is of no interest.
        drop(answer.send(done));
    });
    started.map_err(|cause| cut_short().with_source(cause))?;
    answered
        .await
        .map_err(|cause| cut_short().with_source(cause))?
}

fn cut_short() -> Error {
    let message = "the thread that copies the SQLite file did not get to the end; try again";
    Error::new(ErrorKind::Unavailable, message).nothing_applied()
}

fn back_up(shared: Arc<Shared>, path: &Path, is_given_up: &dyn Fn() -> bool) -> Result<()> {
    let from = shared.file.path.clone();
    let reader = shared.file.reader(&shared.options);
    // A copy that takes long does not keep the handle open.
    drop(shared);
    let mut reader = reader.map_err(|failure| failure.explained(&from))?;
    check_free(path)
        .and_then(|()| check_maps(path))
        .map_err(|failure| not_ours(failure, path))?;
    StagedCopy::of(&mut reader, path, is_given_up)
        .and_then(|copy| copy.settle(true))
        .map_err(|failure| explained(failure, &from, path))
}

/// Checks that the file at that path, if there is one, has maps: the database of
/// another program is not to be replaced.
fn check_maps(path: &Path) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    let there = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    if format::format(&there)?.is_some() {
        return Ok(());
    }
    let message = format!(
        "{} is the database of another program, and no backup to be replaced; use another path",
        path.display()
    );
    Err(Error::new(ErrorKind::Invalid, message).into())
}

/// A file that is not a database is not to be replaced either.
fn not_ours(failure: Failure, path: &Path) -> Error {
    let error = failure.explained(path);
    if error.kind() != ErrorKind::Corrupt {
        return error;
    }
    let message = format!(
        "{} is no SQLite database, and so no backup to be replaced; use another path",
        path.display()
    );
    Error::new(ErrorKind::Invalid, message).with_source(error)
}

/// The error of a copy: damage is that of the original.
fn explained(failure: Failure, from: &Path, to: &Path) -> Error {
    let about = if failure.is_damage() { from } else { to };
    failure.explained(about)
}

async fn restore(backup: &Path, path: &Path, over: bool) -> Result<()> {
    let (backup, path) = (checked_path(backup)?, checked_path(path)?);
    on_a_thread(move |is_given_up| go_back(&backup, &path, over, is_given_up)).await
}

fn go_back(backup: &Path, path: &Path, over: bool, is_given_up: &dyn Fn() -> bool) -> Result<()> {
    if !backup.exists() {
        return Err(no_backup(backup, "there is no such file"));
    }
    file::check_files(backup)?;
    if !over {
        check_nothing_there(path)?;
    }
    if backup.canonicalize().ok() == path.canonicalize().ok() {
        return Err(no_backup(backup, "it is the file itself"));
    }
    let last = last_revision(path)?;
    let from = open_existing(backup);
    let mut from = from.map_err(|cause| Failure::database(cause).explained(backup))?;
    let copy = StagedCopy::of(&mut from, path, is_given_up)
        .map_err(|failure| explained(failure, backup, path))?;
    check(copy.connection(), backup)?;
    raise(copy.connection(), last)
        .and_then(|()| copy.settle(over))
        .map_err(|failure| failure.explained(path))
}

/// A log without its file, too: SQLite would take it for that of the new one.
fn check_nothing_there(path: &Path) -> Result<()> {
    let mut all = iter::once(path.to_owned()).chain(logs(path));
    all.find(|path| path.exists())
        .map_or(Ok(()), |there| Err(exists(&there)))
}

fn no_backup(path: &Path, problem: &str) -> Error {
    let message = format!("{} cannot be restored: {problem}", path.display());
    Error::new(ErrorKind::Invalid, message)
}

/// The last revision of the file that is to be replaced, if it can be read.
///
/// # Errors
///
/// `Invalid` if it is open.
fn last_revision(path: &Path) -> Result<Revision> {
    match check_free(path) {
        Ok(()) => {}
        // A file that is not a database any more is not open either.
        Err(failure) if failure.is_damage() => return Ok(Revision::ZERO),
        Err(failure) => return Err(failure.explained(path)),
    }
    let last = open_existing(path).and_then(|connection| meta::last_revision(&connection));
    // If the counter cannot be read, the wall clock exceeds it.
    Ok(last.unwrap_or_default())
}

fn open_existing(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// Checks that the copy of a backup is whole, before it takes its place.
fn check(copied: &Connection, backup: &Path) -> Result<()> {
    let found = copied.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    let found = found.map_err(|cause| Failure::database(cause).explained(backup))?;
    if found != "ok" {
        let message = format!(
            "the backup {} is damaged; use another one",
            backup.display()
        );
        return Err(Error::new(ErrorKind::Corrupt, message).with_source(found));
    }
    match format::format(copied).map_err(|failure| failure.explained(backup))? {
        Some(_) => Ok(()),
        None => Err(no_backup(backup, "it was not made of a file with maps")),
    }
}

/// Raises the revision above those of the file that is replaced. What was deleted there
/// since the backup is not known, so it counts as pruned.
fn raise(copied: &Connection, last: Revision) -> Result<(), Failure> {
    let highest = meta::last_revision(copied)?.max(last);
    let next = Revision::new(highest.get().saturating_add(1));
    meta::set_revision(copied, meta::LAST, next)?;
    meta::set_revision(copied, meta::PRUNED_TO, next)
}
