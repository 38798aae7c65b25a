//! Revisions grow: in each map, and above each revision that the writer has seen.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task::JoinSet;

use super::{
    trial::{End, Trial},
    writer::{Writer, put},
};
use crate::{
    batch::{Batch, Change, Committed, MapBatch},
    error::{ErrorKind, Result},
    name::MapName,
    provider::Provider,
    record::Revision,
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    every_commit(trial).await;
    beyond_what_was_seen(trial).await;
    clock_set_back(trial).await;
    several_maps(trial).await;
    restarts(trial).await;
    concurrent(trial).await;
}

async fn grows(trial: &mut Trial<'_>, batch: &Batch) -> Revision {
    let last = batch.maps.iter().map(|part| trial.model(&part.map).last);
    let last = last.max().unwrap_or_default().max(batch.after);
    let answer = trial.commit(batch).await;
    let revision = trial.revision(&answer);
    trial.ensure(
        revision > last,
        &format!("a revision above {last}"),
        revision,
    );
    for part in batch.maps.iter() {
        trial.verify(&part.map).await;
    }
    revision
}

async fn every_commit(trial: &mut Trial<'_>) {
    trial.check("each commit to a map has a higher revision");
    let map = trial.map("grows");
    let mut writer = Writer::new();
    for number in 0..4 {
        for changes in [
            vec![put("a", number)],
            vec![put("a", number)],
            vec![Change::touch("a", None)],
            vec![Change::delete("a")],
            vec![Change::delete("a")],
            vec![Change::touch("a", None)],
        ] {
            trial.doing(format!("commit {changes:?}"));
            grows(trial, &writer.batch(&map, changes)).await;
        }
        trial.doing("clear");
        grows(trial, &writer.clearing(&map, vec![])).await;
    }
    trial.doing("commit as another writer, who has seen nothing");
    grows(trial, &Writer::new().batch(&map, vec![put("a", 1)])).await;
}

async fn beyond_what_was_seen(trial: &mut Trial<'_>) {
    trial.check("a commit's revision is above what its writer has seen");
    let map = trial.map("after");
    let mut writer = Writer::new();
    for ahead in [1, 1_000_000, 10_000_000_000] {
        let seen = grows(trial, &writer.batch(&map, vec![put("a", 1)])).await;
        writer.after = Revision::new(seen.get() + ahead);
        trial.doing(format!("commit with `after` {ahead} ahead of the store"));
        grows(trial, &writer.batch(&map, vec![put("b", 1)])).await;
    }
    writer.after = Revision::ZERO;
    trial.doing("commit with `after` far behind the store");
    grows(trial, &writer.batch(&map, vec![put("c", 1)])).await;
}

async fn clock_set_back(trial: &mut Trial<'_>) {
    trial.check("revisions grow when a writer's clock is set back");
    let map = trial.map("clock");
    let mut writer = Writer::new();
    grows(trial, &writer.batch(&map, vec![put("a", 1)])).await;
    for number in 0..3 {
        writer.at = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        grows(trial, &writer.batch(&map, vec![put("a", number)])).await;
    }
}

async fn several_maps(trial: &mut Trial<'_>) {
    if !trial.claims().several_maps {
        return trial.leave_out("batches of several maps", "not claimed");
    }
    trial.check("the revision of a batch is above that of all its maps");
    let maps = ["one", "two"].map(|name| trial.map(name));
    let mut writer = Writer::new();
    for number in 0..6 {
        let ahead = &maps[number % 2];
        for _ in 0..number {
            grows(trial, &Writer::new().batch(ahead, vec![put("a", 1)])).await;
        }
        let part = |map: &MapName| MapBatch::new(map.clone(), vec![put("b", 1)]);
        let batch = writer.batch_of(maps.iter().map(part).collect());
        grows(trial, &batch).await;
    }
}

async fn restarts(trial: &mut Trial<'_>) {
    if !trial.claims().durable {
        return trial.leave_out("revisions across a restart", "durable is not claimed");
    }
    trial.check("revisions grow across restarts, also in an emptied map");
    let map = trial.map("restart");
    for end in [End::Closed, End::Dropped] {
        let mut writer = Writer::new();
        let seen = grows(trial, &writer.batch(&map, vec![put("a", 1)])).await;
        writer.after = Revision::new(seen.get() + 1_000_000_000);
        grows(trial, &writer.batch(&map, vec![put("b", 1)])).await;
        let emptied = vec![Change::delete("a"), Change::delete("b")];
        grows(trial, &writer.batch(&map, emptied)).await;
        trial.doing(format!(
            "empty the map, open again ({end:?} before), commit"
        ));
        trial.reopen(end).await;
        let mut writer = Writer::new();
        grows(trial, &writer.batch(&map, vec![put("c", 1)])).await;
        grows(trial, &writer.clearing(&map, vec![])).await;
        trial.reopen(end).await;
        grows(trial, &Writer::new().batch(&map, vec![put("d", 1)])).await;
    }
}

const WRITERS: u64 = 8;
const COMMITS: u64 = 12;

/// Each writer has a key of its own in a shared map, a key that all of them write, and a map
/// of its own.
async fn concurrent(trial: &mut Trial<'_>) {
    if trial.claims().sharded {
        return trial.leave_out("one order of commits", "the keys are on several stores");
    }
    trial.check("eight writers at once: each commit is there, in one order");
    let shared = trial.map("shared");
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let provider = Arc::clone(trial.provider());
        let maps = [shared.clone(), trial.map(&format!("own {number}"))];
        writers.spawn(write_concurrently(provider, maps, number));
    }
    let mut by_revision = BTreeMap::new();
    for result in writers.join_all().await {
        for (batch, answer) in trial.expect_ok(result) {
            let revision = trial.revision(&answer);
            let key = (batch.maps[0].map.clone(), revision);
            if by_revision.insert(key, (batch, answer)).is_some() {
                trial.broken("each revision of a map once", revision);
            }
        }
    }
    for (batch, answer) in by_revision.into_values() {
        trial.accept(&batch, &answer);
    }
    trial.verify_all().await;
}

async fn write_concurrently(
    provider: Arc<dyn Provider>,
    maps: [MapName; 2],
    number: u64,
) -> Result<Vec<(Batch, Committed)>> {
    let mut writer = Writer::new();
    let mut committed = Vec::new();
    for commit in 0..COMMITS {
        for map in &maps {
            let own = format!("writer {number}, {commit}");
            let batch = writer.batch(map, vec![put("all", number), put(&own, commit)]);
            let answer = commit_patiently(&*provider, &batch).await?;
            committed.push((batch, answer));
        }
    }
    Ok(committed)
}

/// A store may be busy for a while. The identical batch is then repeated.
async fn commit_patiently(provider: &dyn Provider, batch: &Batch) -> Result<Committed> {
    let mut tries = 100;
    loop {
        match provider.commit(batch).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && tries > 0 => tries -= 1,
            result => return result,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
