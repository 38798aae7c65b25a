//! Sorts SQLite's errors by their remedy.

use std::{path::Path, sync::Arc};

use rusqlite::ErrorCode;

use crate::{
    error::{Error, ErrorKind},
    name::MapName,
    provider::sql::failure::{self, Subject},
};

/// A failed operation on a file.
pub(super) type Failure = failure::Failure<rusqlite::Error>;

impl From<rusqlite::Error> for Failure {
    fn from(cause: rusqlite::Error) -> Self {
        Self::database(cause)
    }
}

impl Failure {
    /// Sets the change that failed.
    pub(super) fn on_key(self, map: &MapName, key: &Arc<str>) -> Self {
        match self {
            Self::Provider(error) => Self::Provider(error.on_map(map).on_keys([key.clone()])),
            database @ Self::Database(..) => {
                database.about(|| Subject::Rows(map.clone(), vec![key.clone()]))
            }
        }
    }

    /// Returns the error for the caller, which names the file.
    pub(super) fn explained(self, path: &Path) -> Error {
        match self {
            Self::Provider(error) => error,
            Self::Database(cause, Subject::Commit) => commit_error(path, cause),
            Self::Database(cause, subject) => {
                let is_refused = is_about_the_row(&cause);
                let error = match subject {
                    Subject::Rows(map, keys) if is_refused => refused(
                        path,
                        "this change: it is too large, or violates a constraint of its table",
                    )
                    .on_map(&map)
                    .on_keys(keys)
                    .with_source(cause),
                    Subject::Rows(map, _) | Subject::Table(map) => {
                        explain(path, cause).on_map(&map)
                    }
                    _ => explain(path, cause),
                };
                error.nothing_applied()
            }
        }
    }

    /// Whether the file is damaged, or not a database at all.
    pub(super) fn is_damage(&self) -> bool {
        let code = match self {
            Self::Database(cause, _) => cause.sqlite_error_code(),
            Self::Provider(_) => None,
        };
        matches!(
            code,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
        )
    }
}

fn refused(path: &Path, what: &str) -> Error {
    let message = format!("the SQLite file {} does not take {what}", path.display());
    Error::new(ErrorKind::Refused, message)
}

fn commit_error(path: &Path, cause: rusqlite::Error) -> Error {
    match code(&cause) {
        // Nothing was written without the lock.
        _ if is_busy(&cause) => explain(path, cause).nothing_applied(),
        // A deferred constraint. SQLite has rolled back.
        Some(ErrorCode::ConstraintViolation) => refused(
            path,
            "these changes: together they violate a constraint of its tables",
        )
        .with_source(cause),
        // The commit record may still be in the log, where recovery after a crash would
        // find it. Without a crash no connection sees it, and the next commit overwrites
        // it, so the file stays usable.
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
            "was locked by another connection or process for longer than the busy timeout; try again",
        ),
        Some(
            Code::OperationInterrupted
            | Code::OperationAborted
            | Code::SchemaChanged
            | Code::OutOfMemory,
        ) => (Unavailable, "could not be used just now; try again"),
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
            "is not a SQLite database; nothing was written to it",
        ),
        Some(Code::DatabaseCorrupt) => (
            Corrupt,
            "is damaged; restore it from a backup, or try `.recover` of the sqlite3 program",
        ),
        Some(Code::ConstraintViolation) => (
            Unusable,
            "has a constraint or a trigger that does not allow the change; see the cause",
        ),
        Some(_) => (
            Unusable,
            "lacks a table or a column; put it back as it was, or restore the file from a backup",
        ),
        None => (
            Corrupt,
            "has a value of the wrong type in one of its columns",
        ),
    }
}

/// Whether one row is to blame, and not the file.
fn is_about_the_row(cause: &rusqlite::Error) -> bool {
    matches!(
        code(cause),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
    )
}

/// Whether another connection or process holds a lock.
pub(super) fn is_busy(cause: &rusqlite::Error) -> bool {
    matches!(
        code(cause),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

fn code(cause: &rusqlite::Error) -> Option<ErrorCode> {
    match cause {
        rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
        other => other.sqlite_error_code(),
    }
}
