//! The stores that histories run on.

use super::*;

/// A store that a history runs on.
pub(super) trait Place {
    type Store: Provider;

    /// Opens the store like a new process.
    async fn open(&self) -> Self::Store;

    /// Whether the clock is paused, and moves only while every task waits.
    const PAUSED: bool;
}

impl Place for Memory {
    type Store = Self;
    const PAUSED: bool = true;

    async fn open(&self) -> Self {
        self.clone()
    }
}

#[cfg(feature = "json")]
pub(super) struct AsJsonFile(pub(super) std::path::PathBuf);

#[cfg(feature = "json")]
impl Place for AsJsonFile {
    type Store = persistify::JsonFile;
    const PAUSED: bool = false;

    async fn open(&self) -> persistify::JsonFile {
        let files = persistify::JsonFile::builder(&self.0).max_journal(1_024);
        files.open().await.unwrap()
    }
}

#[cfg(feature = "sqlite")]
pub(super) struct OnSqlite(pub(super) std::path::PathBuf);

#[cfg(feature = "sqlite")]
impl Place for OnSqlite {
    type Store = persistify::Sqlite;
    const PAUSED: bool = false;

    async fn open(&self) -> persistify::Sqlite {
        persistify::Sqlite::open(&self.0).await.unwrap()
    }
}

#[cfg(feature = "postgres")]
impl Place for crate::postgres::Database {
    type Store = persistify::Postgres;
    const PAUSED: bool = false;

    async fn open(&self) -> persistify::Postgres {
        persistify::Postgres::connect(self.url()).await.unwrap()
    }
}
