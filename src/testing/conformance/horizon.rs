//! The horizon of a load is correct: the pages contain every commit up to it.

use std::sync::Arc;

use super::{
    trial::Trial,
    writer::{Writer, put},
};
use crate::{
    batch::{Batch, Change, Committed},
    error::Result,
    load::Wanted,
    name::MapName,
    provider::Provider,
    record::Revision,
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    between_commits(trial).await;
    during_commits(trial).await;
}

async fn between_commits(trial: &mut Trial<'_>) {
    trial.check("the horizon of a load");
    let map = trial.map("horizon");
    let mut writer = Writer::new();
    let batches = [
        writer.batch(&map, vec![put("a", 1)]),
        writer.batch(&map, vec![put("a", 2), put("b", 2)]),
        writer.batch(&map, vec![Change::delete("a")]),
        writer.clearing(&map, vec![]),
    ];
    let mut before = Revision::ZERO;
    for batch in batches {
        let answer = trial.commit(&batch).await;
        let revision = trial.revision(&answer);
        let above = format!("a revision above the horizon {before} of the load before");
        trial.ensure(revision > before, &above, revision);
        for wanted in [Wanted::All, Wanted::page(None, 1), Wanted::changed(before)] {
            let horizon = trial.verify_wanted(&map, wanted).await;
            let all = format!("a horizon not below the last commit's revision {revision}");
            trial.ensure(horizon >= revision, &all, horizon);
            before = before.max(horizon);
        }
    }
}

const KEYS: u64 = 10;
const COMMITS: u64 = 50;

fn all_keys(writer: &mut Writer, map: &MapName, number: u64) -> Batch {
    let changes = (0..KEYS).map(|key| put(&key.to_string(), number));
    writer.batch(map, changes.collect())
}

/// Every commit writes the same keys. A load with the horizon of a commit must therefore not
/// contain a record of an older commit.
async fn during_commits(trial: &mut Trial<'_>) {
    if trial.claims().sharded {
        return trial.leave_out(
            "loads while others commit",
            "the keys are on several stores",
        );
    }
    trial.check("the horizon of a load while others commit");
    let map = trial.map("horizon, commits");
    let mut writer = Writer::new();
    trial.commit(&all_keys(&mut writer, &map, 0)).await;
    let provider = Arc::clone(trial.provider());
    let commits = tokio::spawn(commit_often(provider, writer, map.clone()));
    let mut loads = Vec::new();
    while !commits.is_finished() {
        loads.push(oldest(trial, &map).await);
        tokio::task::yield_now().await;
    }
    let committed = match commits.await {
        Ok(committed) => trial.expect_ok(committed),
        Err(panicked) => trial.broken("success", panicked),
    };
    for (batch, answer) in &committed {
        trial.accept(batch, answer);
    }
    let revisions: Vec<_> = committed.iter().filter_map(|(_, c)| c.revision).collect();
    for (horizon, oldest) in loads {
        let reached = revisions.iter().filter(|revision| **revision <= horizon);
        let reached = reached.max().copied().unwrap_or_default();
        let expected = format!("no record older than {reached}, the last commit up to {horizon}");
        trial.ensure(oldest >= reached, &expected, oldest);
    }
    trial.verify(&map).await;
}

/// The horizon of a load, and the lowest revision of its records.
async fn oldest(trial: &Trial<'_>, map: &MapName) -> (Revision, Revision) {
    let load = trial.load(map, Wanted::All).await;
    let horizon = load.horizon;
    let records = trial.expect_ok(load.into_records().await);
    let oldest = records.iter().map(|record| record.revision).min();
    (horizon, oldest.unwrap_or_default())
}

async fn commit_often(
    provider: Arc<dyn Provider>,
    mut writer: Writer,
    map: MapName,
) -> Result<Vec<(Batch, Committed)>> {
    let mut committed = Vec::new();
    for number in 1..=COMMITS {
        let batch = all_keys(&mut writer, &map, number);
        let answer = provider.commit(&batch).await?;
        committed.push((batch, answer));
        tokio::task::yield_now().await;
    }
    Ok(committed)
}
