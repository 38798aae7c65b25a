//! The conformance suite. It expects the revision of each commit, so it runs as a whole on a
//! journal that acknowledges with the remote. The promises about data also run on a journal that
//! acknowledges locally, below a layer that drains it after each commit.

use std::{collections::HashMap, path::Path, sync::Arc};

use persistify::{
    Acknowledge, Batch, BatchId, Committed, Journaled, Layer, Memory, Provider, ProviderExt,
    Result, Revision, Wanted, async_trait,
    testing::{
        conformance,
        conformance::{atomic, durable, faithful, isolated, ordered},
    },
};
use tokio::sync::Mutex;

/// The answers that were given.
type Answers = Arc<Mutex<HashMap<BatchId, Committed>>>;

/// Drains the journal after each commit, and answers with the revision.
#[derive(Debug)]
struct Drained<P>(Journaled<P>, Answers);

impl<P: Provider> Drained<P> {
    /// The revision of what the batch wrote. Other journals were drained as well, so the last
    /// commit of the store may be theirs.
    async fn revision_of(&self, batch: &Batch) -> Result<Revision> {
        let part = &batch.maps[0];
        let keys = part.changes.iter().map(|change| change.key.clone());
        let load = self
            .inner()
            .load(&part.map, Wanted::Keys(keys.collect()))
            .await?;
        let horizon = load.horizon;
        let records = load.into_records().await?;
        let last = records.iter().map(|record| record.revision).max();
        Ok(last.unwrap_or(horizon))
    }
}

#[async_trait]
impl<P: Provider> Layer for Drained<P> {
    fn inner(&self) -> &dyn Provider {
        &self.0
    }

    /// One commit at a time, so that the next one does not overwrite the revision.
    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let mut answers = self.1.lock().await;
        let mut committed = self.inner().commit(batch).await?;
        if committed.revision.is_some() {
            return Ok(committed);
        }
        self.0.drain().await?;
        if let Some(answer) = answers.get(&batch.id) {
            return Ok(answer.clone());
        }
        committed.revision = Some(self.revision_of(batch).await?);
        answers.insert(batch.id, committed.clone());
        Ok(committed)
    }
}

async fn with_remote<P: Provider>(folder: &Path, open: impl AsyncFn() -> Result<P>) {
    let open = async || {
        let layer = Journaled::new(folder).acknowledge(Acknowledge::Remote);
        let store = open().await?.layer(layer);
        store.drain().await?;
        Ok(store)
    };
    conformance::conformance(open).await;
}

async fn with_local<P: Provider>(
    folder: &Path,
    takes_all: bool,
    open: impl AsyncFn() -> Result<P>,
) {
    let answers = Answers::default();
    let open = async || {
        let store = open().await?.layer(Journaled::new(folder));
        store.drain().await?;
        Ok(Drained(store, answers.clone()))
    };
    // Postgres refuses some values, which is found out after the acknowledgement.
    if takes_all {
        faithful(&open).await;
    }
    atomic(&open).await;
    isolated(&open).await;
    durable(&open).await;
    ordered(&open).await;
}

#[tokio::test]
async fn a_journal_over_memory_conforms() {
    let (remote, folder) = (Memory::new(), tempfile::tempdir().unwrap());
    let open = async || Ok(remote.clone());
    with_remote(folder.path(), open).await;
    with_local(folder.path(), true, open).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_journal_over_sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    let open = async || persistify::Sqlite::open(&path).await;
    with_remote(folder.path(), open).await;
    with_local(folder.path(), true, open).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_journal_over_postgres_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let database = crate::postgres::Database::fresh();
    let open = async || persistify::Postgres::connect(database.url()).await;
    with_remote(folder.path(), open).await;
    with_local(folder.path(), false, open).await;
}
