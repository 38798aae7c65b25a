//! What SQLite's errors mean to the caller, by what to do about them.

use std::{path::Path, sync::Arc};

use rusqlite::ErrorCode;

use crate::{
    error::{Error, ErrorKind},
    name::MapName,
    provider::sql::failure::{self, Subject},
};

/// Why work on a file failed.
pub(super) type Failure = failure::Failure<rusqlite::Error>;

impl From<rusqlite::Error> for Failure {
    fn from(cause: rusqlite::Error) -> Self {
        Self::database(cause)
    }
}

impl Failure {
    /// The same failure of the change of that key.
    pub(super) fn on_key(self, map: &MapName, key: &Arc<str>) -> Self {
        match self {
            Self::Provider(error) => Self::Provider(error.on_map(map).on_keys([key.clone()])),
            database @ Self::Database(..) => {
                database.about(|| Subject::Rows(map.clone(), vec![key.clone()]))
            }
        }
    }

    /// The error for the caller, about that file.
    pub(super) fn explained(self, path: &Path) -> Error {
        match self {
            Self::Provider(error) => error,
            Self::Database(cause, Subject::Commit) => commit_error(path, cause),
            Self::Database(cause, subject) => {
                let is_refused = is_about_the_row(&cause);
                let error = match subject {
                    Subject::Rows(map, keys) if is_refused => refused(
                        path,
                        "this change: it is too large, or breaks a rule of its table",
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
        // Without the lock nothing was written.
        _ if is_busy(&cause) => explain(path, cause).nothing_applied(),
        // A deferred rule, checked at the end. SQLite has rolled back.
        Some(ErrorCode::ConstraintViolation) => refused(
            path,
            "these changes: together they break a rule of its tables",
        )
        .with_source(cause),
        // The end of the transaction may be in the log all the same, where a
        // crash right now would find it. Otherwise no connection sees it and the
        // next commit overwrites it, so the file can still be used.
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
