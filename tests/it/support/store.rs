//! Stores in memory that fail on demand.

use std::collections::BTreeMap;

use persistify::{
    Batch, Committed, Load, MapName, Memory, Provider, Record, Result, Wanted, async_trait,
    testing::Faulty,
};

use super::{map_name, records::text};

pub(crate) type Store = Faulty<Memory>;

pub(crate) fn store() -> Store {
    Faulty::new(Memory::new())
}

/// A provider that implements the required methods only.
#[derive(Clone, Debug)]
pub(crate) struct Plain(pub(crate) Memory);

#[async_trait]
impl Provider for Plain {
    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.0.load(map, wanted).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.0.commit(batch).await
    }
}

/// The records of a map. The read is neither counted nor failed.
pub(crate) async fn records_in(store: &Store, map: &MapName) -> Vec<Record> {
    let load = store.inner().load(map, Wanted::All).await.unwrap();
    load.into_records().await.unwrap()
}

/// The JSON texts of a map, by key.
pub(crate) async fn stored_in(store: &Store, map: &MapName) -> BTreeMap<String, String> {
    let records = records_in(store, map).await;
    let pairs = records
        .iter()
        .map(|r| (r.key.to_string(), text(r).to_owned()));
    pairs.collect()
}

/// The JSON texts of the map `map`, by key.
pub(crate) async fn stored(store: &Store) -> BTreeMap<String, String> {
    stored_in(store, &map_name()).await
}
