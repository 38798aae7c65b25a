//! Why work on a database failed, and what it was about.

use std::sync::Arc;

use crate::{error::Error, name::MapName};

/// An error on its way to the caller. The database's own `C` is sorted once it
/// is known what it is about.
#[derive(Debug)]
pub(crate) enum Failure<C> {
    /// From the database.
    Database(C, Subject),
    /// From the provider itself.
    Provider(Error),
}

/// What an error of the database is about.
#[derive(Debug)]
pub(crate) enum Subject {
    /// The database, or it is not known what.
    Database,
    /// The table of a map.
    Table(MapName),
    /// Changes of a map: these keys, or, where there are none, it is not known
    /// which.
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

    /// The same failure, about that map unless its subject is known.
    pub(crate) fn on_map(self, map: &MapName) -> Self {
        self.about(|| Subject::Table(map.clone()))
    }

    /// The same failure, about that subject unless it has one.
    pub(crate) fn about(self, subject: impl FnOnce() -> Subject) -> Self {
        match self {
            Self::Database(cause, Subject::Database) => Self::Database(cause, subject()),
            other => other,
        }
    }
}
