//! What SQLite's errors mean to the caller: sorted by what to do about them.

use std::{path::Path, sync::Arc};

use rusqlite::ErrorCode;

use crate::{
    error::{Error, ErrorKind},
    name::MapName,
};

/// What stopped a piece of work inside the provider.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite, before anything was committed.
    Sql(rusqlite::Error),
    /// SQLite, about the table of a map.
    Table(rusqlite::Error, MapName),
    /// SQLite, while this one key was written.
    Row(rusqlite::Error, MapName, Arc<str>),
    /// SQLite, in the commit itself.
    Commit(rusqlite::Error),
    /// The provider itself.
    Ours(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(cause: rusqlite::Error) -> Self {
        Self::Sql(cause)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl Fault {
    /// The same, if it is not known yet what it is about: about that map.
    pub(super) fn on_map(self, map: &MapName) -> Self {
        match self {
            Self::Sql(cause) => Self::Table(cause, map.clone()),
            other => other,
        }
    }

    /// The same, about that change of that map.
    pub(super) fn on_key(self, map: &MapName, key: &Arc<str>) -> Self {
        match self {
            Self::Sql(cause) => Self::Row(cause, map.clone(), key.clone()),
            other => other,
        }
    }

    /// The error for the caller, about that file.
    pub(super) fn explained(self, path: &Path) -> Error {
        match self {
            Self::Sql(cause) => explain(path, cause).nothing_applied(),
            Self::Table(cause, map) => explain(path, cause).on_map(&map).nothing_applied(),
            Self::Row(cause, map, key) => row_error(path, cause, &map, key).nothing_applied(),
            Self::Commit(cause) => commit_error(path, cause),
            Self::Ours(error) => error,
        }
    }
}

fn row_error(path: &Path, cause: rusqlite::Error, map: &MapName, key: Arc<str>) -> Error {
    if !is_about_the_row(&cause) {
        return explain(path, cause).on_map(map);
    }
    let message = format!(
        "the SQLite file {} does not take this change: it is too large, or breaks a rule of its table",
        path.display()
    );
    Error::new(ErrorKind::Refused, message)
        .on_map(map)
        .on_keys([key])
        .with_source(cause)
}

fn commit_error(path: &Path, cause: rusqlite::Error) -> Error {
    match code(&cause) {
        // The lock was not had, so nothing was written.
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            explain(path, cause).nothing_applied()
        }
        // A rule that is checked at the end only: SQLite has rolled back.
        Some(ErrorCode::ConstraintViolation) => {
            let message = format!(
                "the SQLite file {} does not take these changes: together they break a rule of its tables",
                path.display()
            );
            Error::new(ErrorKind::Refused, message).with_source(cause)
        }
        // The end of the transaction may be in the log all the same, where a
        // crash right now would find it. Until then nobody sees it, and the
        // next commit overwrites it, so the file may be used on.
        _ => explain(path, cause).outcome_unknown(),
    }
}

fn explain(path: &Path, cause: rusqlite::Error) -> Error {
    let (kind, what) = remedy(&cause);
    let message = format!("the SQLite file {} {what}", path.display());
    Error::new(kind, message).with_source(cause)
}

/// The kind, and the rest of a sentence that begins with the file.
fn remedy(cause: &rusqlite::Error) -> (ErrorKind, &'static str) {
    use ErrorCode as Code;
    use ErrorKind::{Corrupt, Unavailable, Unusable};
    match code(cause) {
        Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed) => (
            Unavailable,
            "was kept locked by someone else for longer than the busy timeout; it may be tried again",
        ),
        Some(
            Code::OperationInterrupted
            | Code::OperationAborted
            | Code::SchemaChanged
            | Code::OutOfMemory,
        ) => (
            Unavailable,
            "could not be used just now; it may be tried again",
        ),
        Some(Code::DiskFull) => (Unusable, "cannot grow; make room on its disk"),
        Some(Code::ReadOnly) => (
            Unusable,
            "cannot be written to; allow this program to write to it and to its folder",
        ),
        Some(
            Code::CannotOpen
            | Code::PermissionDenied
            | Code::AuthorizationForStatementDenied
            | Code::NoLargeFileSupport,
        ) => (
            Unusable,
            "cannot be opened; check that it and its folder exist and that this program may read and write both",
        ),
        Some(Code::SystemIoFailure) => (Unusable, "could not be read or written; check its disk"),
        Some(Code::NotADatabase) => (
            Corrupt,
            "is not an SQLite database; nothing was written to it",
        ),
        Some(Code::DatabaseCorrupt) => (
            Corrupt,
            "is damaged; restore it from a backup, or see what `.recover` of the sqlite3 program saves",
        ),
        Some(Code::ConstraintViolation) => (
            Unusable,
            "keeps a table from being changed by a rule of another program; the cause says which",
        ),
        Some(_) => (
            Unusable,
            "lacks a table or a column that belongs there; put it back as it was, or restore the file from a backup",
        ),
        None => (
            Corrupt,
            "holds something that does not belong in a column of that kind",
        ),
    }
}

/// Whether one row is to blame, and not the file.
pub(super) fn is_about_the_row(cause: &rusqlite::Error) -> bool {
    matches!(
        code(cause),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
    )
}

fn code(cause: &rusqlite::Error) -> Option<ErrorCode> {
    match cause {
        rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
        other => other.sqlite_error_code(),
    }
}
