//! A store that has lost commits reports that.
//!
//! The suite cannot restore an older backup of the store. A writer that claims more
//! acknowledged commits than it made looks the same to the store.

use std::time::{Duration, SystemTime};

use super::{
    trial::{End, Trial},
    writer::{Writer, put},
};
use crate::{
    batch::{Acknowledged, Batch, BatchId, MapBatch},
    error::ErrorKind,
    incarnation::Incarnation,
    load::Wanted,
    name::MapName,
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    let map = trial.map("rewound");
    let mut writer = Writer::new();
    trial.doing("commit to a new map, and look at the incarnation of the store");
    trial.commit(&writer.batch(&map, vec![put("a", 1)])).await;
    let Some(first) = incarnation(trial, &map).await else {
        return trial.leave_out("stores that have lost commits", "it keeps no incarnation");
    };
    answers_carry_it(trial, &map, first).await;
    if trial.claims().sharded {
        // Each store is asked for what it has acknowledged itself, whatever a writer claims.
        return trial.leave_out("false claims of a writer", "the keys are on several stores");
    }
    let second = lower(trial, &map, first).await;
    refused_by_the_old_one(trial, &map, first, second).await;
    let third = none(trial, &map, second).await;
    let last = several_maps(trial, &map, third).await;
    across_restarts(trial, &map, last).await;
}

async fn incarnation(trial: &Trial<'_>, map: &MapName) -> Option<Incarnation> {
    trial.load(map, Wanted::All).await.incarnation
}

/// The writer's next batch. It names this incarnation, and the sequence that was acknowledged
/// so long ago.
fn claiming(
    writer: &mut Writer,
    map: &MapName,
    incarnation: Incarnation,
    (sequence, ago): (u64, Duration),
) -> Batch {
    let known = Acknowledged::new(BatchId::new(writer.id, sequence), writer.at - ago);
    let part = MapBatch::new(map.clone(), vec![put("claimed", sequence)])
        .in_incarnation(Some(incarnation))
        .after_acknowledged(Some(known));
    writer.batch_of(vec![part])
}

const RECENTLY: Duration = Duration::from_secs(1);
const LONG_AGO: Duration = Duration::from_secs(30 * 24 * 60 * 60);

async fn answers_carry_it(trial: &mut Trial<'_>, map: &MapName, first: Incarnation) {
    trial.check("loads, commits and pings answer with the incarnation");
    let mut writer = Writer::new();
    let batch = writer.batch(map, vec![put("a", 2)]);
    for batch in [batch.clone(), batch] {
        let answer = trial.commit(&batch).await.incarnation;
        trial.ensure(answer == Some(first), "that of the store", answer);
    }
    let ping = trial.expect_ok(trial.provider().ping().await);
    let is_known = ping.is_none_or(|found| found == first);
    trial.ensure(is_known, "that of the store, or none", ping);
    for wanted in [Wanted::page(None, 1), Wanted::Keys([].into())] {
        let found = trial.load(map, wanted).await.incarnation;
        trial.ensure(found == Some(first), "that of the store", found);
    }
    trial.doing("commit with claims that hold, often");
    for sequence in 1..5 {
        let batch = claiming(&mut writer, map, first, (sequence, RECENTLY));
        trial.commit(&batch).await;
    }
}

/// Expects a refusal that names both states, and returns the new incarnation.
async fn renewed(trial: &mut Trial<'_>, batch: &Batch, old: Incarnation) -> Incarnation {
    let error = trial.commit_fails(batch, ErrorKind::Rewound).await;
    let found = incarnation(trial, &batch.maps[0].map).await;
    let Some(new) = found.filter(|found| *found != old) else {
        trial.broken("a new incarnation", found);
    };
    let states = error.rewound();
    let named = states.map(|states| (states.expected, states.found));
    trial.ensure(
        named == Some((Some(old), Some(new))),
        "an error that names the old incarnation and the new one",
        states,
    );
    new
}

async fn lower(trial: &mut Trial<'_>, map: &MapName, first: Incarnation) -> Incarnation {
    trial.check("a store that remembers less than it acknowledged has a new incarnation");
    let mut writer = Writer::new();
    trial.commit(&writer.batch(map, vec![put("b", 1)])).await;
    writer.sequence = 9;
    let batch = claiming(&mut writer, map, first, (7, LONG_AGO));
    let second = renewed(trial, &batch, first).await;
    trial.doing("notice it once more");
    let late = claiming(&mut writer, map, first, (7, RECENTLY));
    trial.commit_fails(&late, ErrorKind::Rewound).await;
    let found = incarnation(trial, map).await;
    trial.ensure(found == Some(second), "the same incarnation", found);
    second
}

async fn refused_by_the_old_one(
    trial: &mut Trial<'_>,
    map: &MapName,
    old: Incarnation,
    new: Incarnation,
) {
    trial.check(
        "a writer that knows an earlier incarnation is refused, also if another one noticed",
    );
    let mut other = Writer::new();
    let first = other.batch(map, vec![put("c", 1)]);
    let answer = trial.commit(&first).await;
    let batch = claiming(&mut other, map, old, (1, RECENTLY));
    trial.commit_fails(&batch, ErrorKind::Rewound).await;
    trial.repeat(&first, &answer).await;
    trial.doing("commit as one that knows the new incarnation, or none");
    trial
        .commit(&claiming(&mut other, map, new, (1, RECENTLY)))
        .await;
    trial.commit(&other.batch(map, vec![put("c", 2)])).await;
}

async fn none(trial: &mut Trial<'_>, map: &MapName, second: Incarnation) -> Incarnation {
    trial.check("a store that forgot an idle writer has lost nothing, one that forgot another has");
    let mut idle = Writer::new();
    trial
        .commit(&claiming(&mut idle, map, second, (0, LONG_AGO)))
        .await;
    let mut writer = Writer::new();
    writer.at = SystemTime::now();
    writer.sequence = 9;
    let batch = claiming(&mut writer, map, second, (7, RECENTLY));
    renewed(trial, &batch, second).await
}

async fn several_maps(trial: &mut Trial<'_>, map: &MapName, third: Incarnation) -> Incarnation {
    if !trial.claims().several_maps {
        trial.leave_out("losses of other maps of a batch", "not claimed");
        return third;
    }
    trial.check("a batch of several maps is refused if any of their writers has lost commits");
    let second = trial.map("rewound, second");
    let (mut one, mut other) = (Writer::new(), Writer::new());
    trial.commit(&other.batch(&second, vec![put("a", 1)])).await;
    let of_one = MapBatch::new(map.clone(), vec![put("a", 3)]).in_incarnation(Some(third));
    let of_other = claiming(&mut other, &second, third, (5, RECENTLY)).maps[0].clone();
    let batch = one.batch_of(vec![of_one, of_other]);
    renewed(trial, &batch, third).await
}

async fn across_restarts(trial: &mut Trial<'_>, map: &MapName, last: Incarnation) {
    if !trial.claims().durable {
        return trial.leave_out("incarnations across a restart", "durable is not claimed");
    }
    trial.check("the incarnation survives a restart");
    for end in [End::Closed, End::Dropped] {
        trial.reopen(end).await;
        let found = incarnation(trial, map).await;
        trial.ensure(found == Some(last), "the incarnation from before", found);
    }
    trial.doing("notice a loss, open again");
    let mut writer = Writer::new();
    writer.sequence = 9;
    let batch = claiming(&mut writer, map, last, (7, RECENTLY));
    let new = renewed(trial, &batch, last).await;
    trial.reopen(End::Dropped).await;
    let found = incarnation(trial, map).await;
    trial.ensure(found == Some(new), "the new incarnation", found);
}
