//! Errors of the system about a file, sorted by their remedy.

use std::{io, path::Path};

use crate::error::{Error, ErrorKind};

/// The error for a failed operation on a file. It says that nothing was applied; the caller may
/// change that.
pub(crate) fn fault(doing: &str, path: &Path, error: io::Error) -> Error {
    let (kind, remedy) = remedy_for(error.kind());
    Error::new(kind, format!("cannot {doing} {}: {remedy}", path.display()))
        .with_source(error)
        .nothing_applied()
}

fn remedy_for(kind: io::ErrorKind) -> (ErrorKind, &'static str) {
    use io::ErrorKind as Io;
    let remedy = match kind {
        Io::Interrupted | Io::TimedOut | Io::WouldBlock | Io::ResourceBusy => {
            return (ErrorKind::Unavailable, "the disk is busy; try again");
        }
        Io::PermissionDenied => {
            "permission denied; give this user permission to read and write there"
        }
        Io::ReadOnlyFilesystem => "it is mounted read-only; mount it for writing",
        Io::StorageFull | Io::QuotaExceeded => "the disk is full; make room",
        Io::FileTooLarge => "the file would exceed a limit; raise it",
        Io::NotFound => "it is missing; restore it with its content",
        Io::IsADirectory => "a folder is in the place of the file; move it away",
        Io::InvalidInput => "it is not a file; move it away",
        Io::NotADirectory | Io::AlreadyExists => {
            "something else is in the place of the folder; move it away, or use another path"
        }
        _ => "see the cause",
    };
    (ErrorKind::Unusable, remedy)
}

/// The error for a file with invalid content.
pub(crate) fn corrupt(path: &Path, problem: &str, remedy: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("{}: {problem}; {remedy}", path.display()),
    )
}
