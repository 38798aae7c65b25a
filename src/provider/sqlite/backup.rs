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
    /// Writes a copy of the file, with all its maps, to a path. An existing file with maps,
    /// such as an older backup, is replaced.
    ///
    /// The copy includes everything that was committed before the call. Maps can be read
    /// and written in the meantime: their commits do not wait for the copy and are not part
    /// of it. (They stay in SQLite's log until the copy is done.) The copy is moved to the
    /// path when it is complete and on disk. It is an ordinary database in one file.
    ///
    /// Dropping the future while pages are copied cancels the backup, and the path is
    /// unchanged. A copy that is complete is still moved to the path.
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
    /// - `Invalid`: the file at the path is open (it may be this very file), is not a
    ///   database, or is the database of another program.
    /// - `Unusable`: the path cannot be written to, or the disk is full.
    /// - `Corrupt`: this file is damaged.
    /// - `Closed`: this file was closed.
    ///
    /// In all of these cases, the file at the path is unchanged.
    pub async fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        self.shared.worker.check_open()?;
        let path = checked_path(path.as_ref())?;
        let shared = self.shared.clone();
        on_a_thread(move |is_given_up| back_up(shared, &path, is_given_up)).await
    }

    /// Copies a [backup](Self::backup) to a path where there is no file. Then
    /// [open](Self::open) it.
    ///
    /// The copy is checked before it is moved to the path, and the backup is not changed.
    /// Revisions do not go back: commits to the new file get higher ones than all commits
    /// before, including those made after the backup.
    ///
    /// # Errors
    ///
    /// - `Invalid`: there is a file at the path, or the log of one that was deleted; the
    ///   backup does not exist, or is not that of a file with maps.
    /// - `Corrupt`: the backup is not a SQLite database, or it is damaged.
    /// - `Unusable`: the path cannot be written to, the disk is full, or the backup was
    ///   written by a later version of this library.
    ///
    /// In all of these cases, the file at the path is unchanged.
    pub async fn restore(backup: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        restore(backup.as_ref(), path.as_ref(), false).await
    }

    /// Like [`restore`](Self::restore), but replaces an existing file, whose content is
    /// lost. That file may be damaged. It must not be opened during the call.
    ///
    /// # Errors
    ///
    /// As for [`restore`](Self::restore); and `Invalid` if the file is open, in
    /// this program or in another.
    pub async fn restore_over(backup: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        restore(backup.as_ref(), path.as_ref(), true).await
    }
}

/// Runs long work on a thread of its own. The work can ask whether the future was dropped.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn() -> bool) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (answer, answered) = oneshot::channel();
    let thread = thread::Builder::new().name("persistify-sqlite-copy".into());
    let started = thread.spawn(move || {
        let done = work(&|| answer.is_closed());
        // If the future was dropped, nothing reads the outcome.
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
    // A long copy does not keep the handle open.
    drop(shared);
    let mut reader = reader.map_err(|failure| failure.explained(&from))?;
    check_free(path)
        .and_then(|()| check_maps(path))
        .map_err(|failure| not_ours(failure, path))?;
    StagedCopy::of(&mut reader, path, is_given_up)
        .and_then(|copy| copy.settle(true))
        .map_err(|failure| explained(failure, &from, path))
}

/// Checks that the file at the path, if it exists, has maps: a backup must not replace
/// the database of another program.
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

/// A backup must not replace a file that is not a database either.
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

/// The error of a copy. If something is damaged, it is the original.
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

/// Checks for a log without its file, too: SQLite would use it with the new file.
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
        // A file that is no longer a database is not open either.
        Err(failure) if failure.is_damage() => return Ok(Revision::ZERO),
        Err(failure) => return Err(failure.explained(path)),
    }
    let last = open_existing(path).and_then(|connection| meta::last_revision(&connection));
    // If it cannot be read, zero will do: new revisions are at least the wall clock.
    Ok(last.unwrap_or_default())
}

fn open_existing(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// Checks that the copy of a backup is intact, before it is moved to its place.
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

/// Raises the revision above those of the file that is replaced. Deletions since the
/// backup are unknown, so they count as pruned.
fn raise(copied: &Connection, last: Revision) -> Result<(), Failure> {
    let highest = meta::last_revision(copied)?.max(last);
    let next = Revision::new(highest.get().saturating_add(1));
    meta::set_revision(copied, meta::LAST, next)?;
    meta::set_revision(copied, meta::PRUNED_TO, next)
}
