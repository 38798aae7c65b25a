//! The provider contract, with every value type and on tables of other programs.

use std::{collections::BTreeMap, sync::Mutex};

use async_trait::async_trait;
use persistify::{Capabilities, Incarnation, Load, testing::conformance};

use super::*;

async fn conforms(kind: ValueType) {
    let database = Database::fresh();
    let open = async || {
        Postgres::builder(database.url())
            .value_type(kind)
            .connect()
            .await
    };
    let report = conformance(open).await;
    println!("{report}");
    let refuses_nul = report
        .to_string()
        .contains("a NUL in a value (it refuses it)");
    assert_eq!(refuses_nul, kind == ValueType::Jsonb, "{report}");
}

#[tokio::test]
async fn postgres_conforms_with_jsonb() {
    conforms(ValueType::Jsonb).await;
}

#[tokio::test]
async fn postgres_conforms_with_json() {
    conforms(ValueType::Json).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms_with_text() {
    conforms(ValueType::Text).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms_with_bytea() {
    conforms(ValueType::Bytea).await;
}

/// A provider that adopts a table for every map. The table is created on the first use of the
/// map.
#[derive(Debug)]
struct Adopting {
    place: Arc<Foreign>,
    /// Connects again when a table is added.
    store: tokio::sync::Mutex<Option<(usize, Postgres)>>,
}

struct Foreign {
    database: Database,
    value_type: &'static str,
    tables: Mutex<BTreeMap<MapName, String>>,
}

impl std::fmt::Debug for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.value_type)
    }
}

impl Foreign {
    fn add(&self, map: &MapName) -> usize {
        let mut tables = self.tables.lock().unwrap();
        let name = format!("Of \"another\" {}", tables.len());
        if !tables.contains_key(map) {
            self.database.witness().execute(format!(
                "CREATE TABLE \"{}\" (id serial, \"The Key\" text UNIQUE NOT NULL,
                    \"The Value\" {} NOT NULL, \"At\" timestamptz)",
                name.replace('"', "\"\""),
                self.value_type
            ));
            tables.insert(map.clone(), name);
        }
        tables.len()
    }

    async fn connect(&self) -> Result<Postgres> {
        let tables = self.tables.lock().unwrap().clone();
        let builder = Postgres::builder(self.database.url()).max_connections(4);
        let builder = builder.columns("The Key", "The Value", "At");
        let adopting = tables
            .into_iter()
            .fold(builder, |b, (map, table)| b.table(map.as_str(), table));
        adopting.connect().await
    }
}

impl Adopting {
    async fn with(&self, maps: &[&MapName]) -> Result<Postgres> {
        let count = maps
            .iter()
            .map(|map| self.place.add(map))
            .max()
            .unwrap_or(0);
        let mut store = self.store.lock().await;
        if let Some((known, store)) = &*store
            && *known >= count
        {
            return Ok(store.clone());
        }
        let connected = self.place.connect().await?;
        *store = Some((count, connected.clone()));
        Ok(connected)
    }
}

#[async_trait]
impl Provider for Adopting {
    fn capabilities(&self) -> Capabilities {
        let least = Capabilities::least().with_several_maps().with_conditions();
        least.with_durable()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let store = self.with(&[map]).await?;
        let load = store.load(map, wanted).await?;
        let horizon = load.horizon;
        let records = load.into_records().await?;
        Ok(Load::of(horizon, records))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let maps: Vec<_> = batch.maps.iter().map(|part| &part.map).collect();
        self.with(&maps).await?.commit(batch).await
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        self.with(&[]).await?.maps().await
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        self.with(&[]).await?.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.with(&[]).await?.close().await
    }
}

async fn adopted_conforms(value_type: &'static str) {
    let place = Arc::new(Foreign {
        database: Database::fresh(),
        value_type,
        tables: Mutex::default(),
    });
    let open = async || {
        Ok(Adopting {
            place: place.clone(),
            store: tokio::sync::Mutex::new(None),
        })
    };
    // The other promises include keys that an adopted table does not accept.
    conformance::atomic(&open).await;
    conformance::idempotent_and_fenced(&open).await;
    conformance::isolated(&open).await;
    conformance::ordered(&open).await;
    conformance::honest(&open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adopted_tables_conform() {
    adopted_conforms("jsonb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adopted_tables_of_text_conform() {
    adopted_conforms("text").await;
}
