//! Groups: a failed condition with [`Otherwise::Skip`] skips its whole group, and the rest of
//! the batch is applied.

use crate::{
    batch::{Batch, Change, Expect, MapBatch, Otherwise, Skipped},
    error::ErrorKind,
    testing::conformance::{
        same::same_skipped,
        trial::Trial,
        writer::{Writer, put},
    },
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    one_map(trial).await;
    conflicting(trial).await;
    clearing(trial).await;
    if !trial.claims().several_maps {
        return trial.leave_out("groups across maps", "several maps are not claimed");
    }
    several_maps(trial).await;
}

const GROUPS: [u32; 2] = [1, 2];

/// The groups whose condition fails.
const FAILING: [&[u32]; 4] = [&[], &[1], &[2], &[1, 2]];

/// The records before the batch. The condition of a group fails if its entry is among them.
fn stored(failing: &[u32]) -> Vec<Change> {
    let others = ["held", "touched", "deleted"];
    let others = GROUPS.map(|group| others.map(|what| put(&format!("{what} {group}"), 1)));
    let conditions = failing
        .iter()
        .map(|group| put(&format!("absent {group}"), 1));
    let others = others.into_iter().flatten();
    others.chain(conditions).chain([put("alone", 1)]).collect()
}

/// Two groups with all operations in each, one of them without a condition, and changes
/// outside the groups, of which one is skipped.
fn changes() -> Vec<Change> {
    let skip = |key: &str, expect| put(key, 2).expect(expect, Otherwise::Skip);
    let mut changes = vec![put("beside", 2), skip("alone", Expect::Absent)];
    for group in GROUPS {
        let key = |what: &str| format!("{what} {group}");
        let of_group = [
            put(&key("put"), 2),
            skip(&key("held"), Expect::Present),
            skip(&key("absent"), Expect::Absent),
            Change::touch(key("touched"), None),
            Change::delete(key("deleted")),
        ];
        changes.extend(of_group.map(|change| change.in_group(group)));
    }
    changes.push(put("plain", 2).in_group(3));
    changes
}

async fn one_map(trial: &mut Trial<'_>) {
    trial.check("a condition that fails leaves out its group");
    let map = trial.map("groups");
    let mut writer = Writer::new();
    for failing in FAILING {
        trial.commit(&writer.clearing(&map, stored(failing))).await;
        trial.doing(format!(
            "two groups in a map, of which these fail: {failing:?}"
        ));
        let batch = writer.batch(&map, changes());
        commit(trial, &batch, failing).await;
    }
}

async fn several_maps(trial: &mut Trial<'_>) {
    trial.check("a condition that fails leaves out its group in all maps");
    let maps = ["one", "two"].map(|name| trial.map(&format!("groups {name}")));
    let mut writer = Writer::new();
    for failing in FAILING {
        for map in &maps {
            trial.commit(&writer.clearing(map, stored(failing))).await;
        }
        trial.doing(format!(
            "groups across two maps, of which these fail: {failing:?}"
        ));
        let mut parts = maps.clone().map(|map| MapBatch::new(map, Vec::new()));
        for (n, change) in changes().into_iter().enumerate() {
            parts[n % 2].changes.push(change);
        }
        let batch = writer.batch_of(parts.into());
        commit(trial, &batch, failing).await;
    }
}

async fn conflicting(trial: &mut Trial<'_>) {
    trial.check("a condition that must hold counts in a group that is left out, too");
    let map = trial.map("groups in conflict");
    let mut writer = Writer::new();
    trial.commit(&writer.batch(&map, stored(&[1]))).await;
    let must = put("not there", 2).expect(Expect::Present, Otherwise::Fail);
    let mut changes = changes();
    changes.push(must.clone().in_group(1));
    let batch = writer.batch(&map, changes);
    let error = trial.commit_fails(&batch, ErrorKind::Conflict).await;
    super::verify_conflict(trial, &error, &map, &must);
}

async fn clearing(trial: &mut Trial<'_>) {
    trial.check("a group that is left out after a clear finds nothing");
    let map = trial.map("groups, clear");
    let mut writer = Writer::new();
    trial.commit(&writer.batch(&map, stored(&[1]))).await;
    let present = put("held 1", 2).expect(Expect::Present, Otherwise::Skip);
    let changes = vec![
        put("absent 1", 2).in_group(1),
        put("beside", 2),
        present.in_group(1),
    ];
    let batch = writer.clearing(&map, changes);
    commit(trial, &batch, &[1]).await;
}

/// Commits, and expects that the changes of these groups are skipped, and the one outside
/// them.
async fn commit(trial: &mut Trial<'_>, batch: &Batch, failing: &[u32]) {
    let is_skipped = |change: &&Change| {
        *change.key == *"alone" || change.group.is_some_and(|group| failing.contains(&group))
    };
    let mut expected = Vec::new();
    for part in batch.maps.iter() {
        let records = trial.model(&part.map).records;
        for change in part.changes.iter().filter(is_skipped) {
            let found = records.get(&change.key).filter(|_| !part.clear);
            expected.push(Skipped::new(
                part.map.clone(),
                change.key.clone(),
                found.cloned(),
            ));
        }
    }
    let answer = trial.commit(batch).await;
    let same = same_skipped(&expected, &answer.skipped);
    let expectation = format!("these skipped changes, in this order: {expected:?}");
    trial.ensure(same, &expectation, &answer.skipped);
    for part in batch.maps.iter() {
        trial.verify(&part.map).await;
    }
    trial.repeat(batch, &answer).await;
}
