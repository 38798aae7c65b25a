//! A batch is applied completely or not at all.

use std::{future::poll_fn, pin::pin, task::Poll};

use super::{
    trial::{End, Trial},
    writer::{Writer, put},
};
use crate::{
    batch::{Batch, Change, Committed, Expect, MapBatch, Otherwise},
    error::{ErrorKind, Result},
    load::Wanted,
    name::MapName,
    provider::Provider,
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    never_polled(trial).await;
    if trial.claims().sharded {
        return across_stores(trial).await;
    }
    dropped(trial).await;
    if !trial.claims().conditions {
        return trial.leave_out("conflicts leave nothing", "conditions are not claimed");
    }
    conflict_at_the_end(trial).await;
    conflict_after_a_clear(trial).await;
    if !trial.claims().several_maps {
        return trial.leave_out("conflict in another map", "several maps are not claimed");
    }
    conflict_in_another_map(trial).await;
}

/// Commits a batch, and drops the future after the given number of polls.
pub(super) async fn commit_dropped(
    provider: &dyn Provider,
    batch: &Batch,
    polls: usize,
) -> Option<Result<Committed>> {
    let mut commit = pin!(provider.commit(batch));
    let mut polled = 0;
    poll_fn(|cx| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        commit.as_mut().poll(cx).map(Some)
    })
    .await
}

async fn never_polled(trial: &mut Trial<'_>) {
    trial.check("a commit that is never polled does nothing");
    let map = trial.map("never polled");
    let mut writer = Writer::new();
    trial.commit(&writer.batch(&map, vec![put("a", 1)])).await;
    let batch = writer.clearing(&map, vec![put("b", 2)]);
    drop(trial.provider().commit(&batch));
    trial.verify(&map).await;
    trial.commit(&batch).await;
    trial.verify(&map).await;
}

/// A batch of many keys is refused whole, unless it is divisible.
async fn across_stores(trial: &mut Trial<'_>) {
    trial.leave_out("batches that land whole", "the keys are on several stores");
    trial.check("an atomic batch for several stores is refused before anything is written");
    let map = trial.map("across stores");
    let mut writer = Writer::new();
    let changes: Vec<_> = (0..100).map(|n| put(&format!("key {n}"), 1)).collect();
    let must = put("key 0", 1).expect(Expect::Absent, Otherwise::Fail);
    let conditional: Vec<_> = [must].into_iter().chain(changes[1..].to_vec()).collect();
    let grouped = changes.iter().map(|change| change.clone().in_group(1));
    let plain = writer.batch(&map, changes.clone()).divisible(false);
    let cleared = writer.clearing(&map, vec![]).divisible(false);
    let bound = [conditional, grouped.collect()].map(|changes| writer.batch(&map, changes));
    let bound = bound.map(|batch| batch.divisible(true));
    for batch in [plain, cleared].into_iter().chain(bound) {
        trial.commit_fails(&batch, ErrorKind::Unsupported).await;
    }
}

async fn dropped(trial: &mut Trial<'_>) {
    trial.check("a commit that is dropped lands whole, or not at all");
    for polls in 1..=4 {
        trial.doing(format!(
            "drop a commit of 2,000 changes after {polls} polls"
        ));
        let map = trial.map(&format!("dropped {polls}"));
        let mut writer = Writer::new();
        let changes = |number| {
            (0..2_000)
                .map(|n| put(&format!("key {n}"), number))
                .collect()
        };
        trial.commit(&writer.batch(&map, changes(1))).await;
        let batch = writer.clearing(&map, changes(2)).divisible(false);
        let provider = trial.provider().clone();
        let answer = commit_dropped(&*provider, &batch, polls).await;
        drop(provider);
        settle(trial, &map).await;
        if let Some(answer) = answer {
            let answer = trial.expect_ok(answer);
            trial.accept(&batch, &answer);
            return trial.verify(&map).await;
        }
        verify_whole(trial, &map).await;
        repeated(trial, &batch).await;
    }
}

/// Waits until a commit whose future was dropped has ended.
async fn settle(trial: &mut Trial<'_>, map: &MapName) {
    if trial.claims().durable {
        return trial.reopen(End::Dropped).await;
    }
    // A commit to the same map waits for the one before it. This one deletes nothing.
    let batch = Writer::new().batch(map, vec![Change::delete("nothing")]);
    trial.expect_ok(trial.provider().commit(&batch).await);
}

async fn verify_whole(trial: &Trial<'_>, map: &MapName) {
    let load = trial.load(map, Wanted::All).await;
    let records = trial.expect_ok(load.into_records().await);
    let new = records
        .iter()
        .filter(|r| r.value.as_ref().is_some_and(|v| &*v.bytes == b"2"));
    let new = new.count();
    let whole = records.len() == 2_000 && (new == 0 || new == 2_000);
    let found = format!("{} records, {new} of them new", records.len());
    trial.ensure(
        whole,
        "2,000 records, all of them old or all of them new",
        found,
    );
}

async fn repeated(trial: &mut Trial<'_>, batch: &Batch) {
    let map = &batch.maps[0].map;
    trial.commit(batch).await;
    trial.verify(map).await;
}

/// A batch that puts, touches and deletes, and ends with a condition that fails.
fn failing(map: &MapName) -> MapBatch {
    let mut changes: Vec<_> = (0..1_000).map(|n| put(&format!("new {n}"), 2)).collect();
    changes.extend([put("a", 2), Change::touch("b", None), Change::delete("c")]);
    changes.push(put("last", 2).expect(Expect::Present, Otherwise::Fail));
    MapBatch::new(map.clone(), changes)
}

fn filling(map: &MapName) -> MapBatch {
    let changes = ["a", "b", "c"].map(|key| put(key, 1));
    MapBatch::new(map.clone(), changes.into())
}

async fn conflict_at_the_end(trial: &mut Trial<'_>) {
    trial.check("a conflict in the last change leaves nothing of the batch");
    let map = trial.map("conflict");
    let mut writer = Writer::new();
    trial.commit(&writer.batch_of(vec![filling(&map)])).await;
    let batch = writer.batch_of(vec![failing(&map)]);
    trial.commit_fails(&batch, ErrorKind::Conflict).await;
}

async fn conflict_after_a_clear(trial: &mut Trial<'_>) {
    trial.check("a conflict leaves nothing of the batch's clear");
    let map = trial.map("conflict, clear");
    let mut writer = Writer::new();
    trial.commit(&writer.batch_of(vec![filling(&map)])).await;
    let batch = writer.batch_of(vec![failing(&map).clearing(true)]);
    trial.commit_fails(&batch, ErrorKind::Conflict).await;
}

async fn conflict_in_another_map(trial: &mut Trial<'_>) {
    trial.check("a conflict in one map leaves nothing in the others");
    let maps = ["one", "two", "three"].map(|name| trial.map(name));
    let mut writer = Writer::new();
    let batch = writer.batch_of(maps.iter().map(filling).collect());
    trial.commit(&batch).await;
    for bad in 0..maps.len() {
        trial.doing(format!(
            "commit to three maps, with a conflict in number {bad}"
        ));
        let parts = maps.iter().enumerate().map(|(n, map)| match n {
            _ if n == bad => failing(map),
            _ => MapBatch::new(map.clone(), vec![put("a", 2)]).clearing(true),
        });
        let batch = writer.batch_of(parts.collect());
        trial.commit_fails(&batch, ErrorKind::Conflict).await;
    }
}
