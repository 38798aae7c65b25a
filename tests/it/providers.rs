//! Every provider keeps the contract of `Provider`, and the conformance suite detects providers
//! that break it.

use std::sync::Arc;

use persistify::{
    Memory, Provider, Result,
    testing::{Faulty, conformance, conformance::Promise},
};

mod broken;
mod least;
mod rewound;

#[tokio::test]
async fn memory_conforms() {
    let memory = Memory::new();
    let report = conformance(async || Ok(memory.clone())).await;
    assert_eq!(report.outcomes().len(), 7, "{report}");
}

#[cfg(feature = "json")]
#[tokio::test]
async fn json_files_conform() {
    let folder = tempfile::tempdir().unwrap();
    conformance(async || persistify::JsonFile::open(folder.path()).await).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    conformance(async || persistify::Sqlite::open(&path).await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_conforms() {
    let database = crate::postgres::Database::fresh();
    conformance(async || persistify::Postgres::connect(database.url()).await).await;
}

#[tokio::test]
async fn faulty_without_faults_conforms() {
    let memory = Memory::new();
    conformance(async || Ok(Faulty::new(memory.clone()))).await;
}

#[tokio::test]
async fn a_shared_provider_conforms() {
    let memory = Memory::new();
    conformance(async || Ok(Arc::new(memory.clone()) as Arc<dyn Provider>)).await;
}

/// A plain closure that calls an `async fn` works, too.
#[tokio::test]
async fn a_function_that_opens_the_store_may_be_a_closure_or_not() {
    async fn open(kept: &Memory) -> Result<Memory> {
        kept.ping().await?;
        Ok(kept.clone())
    }
    let memory = Memory::new();
    conformance(|| open(&memory)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_conforms_on_several_threads() {
    let memory = Memory::new();
    conformance(async || Ok(memory.clone())).await;
}

#[tokio::test]
async fn the_suite_runs_twice_in_a_store_and_leaves_other_maps_alone() {
    use persistify::{
        Batch, BatchId, Change, MapBatch, MapName, Payload, Revision, Wanted, WriterId,
    };
    let memory = Memory::new();
    let stock = MapName::new("stock").unwrap();
    let apple = Change::put("apple", Payload::json("3"), None);
    let part = MapBatch::new(stock.clone(), vec![apple]);
    let id = BatchId::new(WriterId::random(), 1);
    let batch = Batch::new(id, Revision::ZERO, std::time::SystemTime::now(), [part]);
    memory.commit(&batch).await.unwrap();
    for _ in 0..2 {
        conformance(async || Ok(memory.clone())).await;
    }
    for map in memory.maps().await.unwrap() {
        let load = memory.load(&map, Wanted::All).await.unwrap();
        let left = load.into_records().await.unwrap().len();
        assert_eq!(left, usize::from(map == stock), "{map}");
    }
}

#[tokio::test]
async fn the_report_has_a_line_a_word_and_says_what_was_left_out() {
    let memory = Memory::new();
    let report = conformance(async || Ok(memory.clone())).await;
    let text = report.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 7, "{text}");
    assert_eq!(
        lines[4],
        "durable: 0 checked; left out: opening again (not claimed)"
    );
    let honest = report
        .outcomes()
        .iter()
        .find(|outcome| outcome.promise() == Promise::Honest);
    assert!(honest.unwrap().left_out().is_empty(), "{text}");
}
