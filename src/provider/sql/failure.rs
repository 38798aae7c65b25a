//! Failures of a database, and their subjects.

use std::sync::Arc;

use crate::{error::Error, name::MapName};

/// An error on its way to the caller. The database's own error `C` is sorted once its
/// subject is known.
#[derive(Debug)]
pub(crate) enum Failure<C> {
    /// From the database.
    Database(C, Subject),
    /// From the provider itself.
    Provider(Error),
}

/// The subject of a database error.
#[derive(Debug)]
pub(crate) enum Subject {
    /// The database, or unknown.
    Database,
    /// The table of a map.
    Table(MapName),
    /// Changes of a map with these keys; if there are none, the keys are unknown.
    Rows(MapName, Vec<Arc<str>>),
    /// The end of a transaction.
    Commit,
}

impl<C> From<Error> for Failure<C> {
    fn from(error: Error) -> Self {
        Self::Provider(error)
    }
}

impl<C> Failure<C> {
    pub(crate) fn database(cause: C) -> Self {
        Self::Database(cause, Subject::Database)
    }

    pub(crate) fn on_commit(cause: C) -> Self {
        Self::Database(cause, Subject::Commit)
    }

    /// Sets the map as the subject, unless the subject is known.
    pub(crate) fn on_map(self, map: &MapName) -> Self {
        self.about(|| Subject::Table(map.clone()))
    }

    /// Sets the subject, unless it is known.
    pub(crate) fn about(self, subject: impl FnOnce() -> Subject) -> Self {
        match self {
            Self::Database(cause, Subject::Database) => Self::Database(cause, subject()),
            other => other,
        }
    }
}
