//! Each kind of load agrees with a simple model, and its horizon is correct.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    dice::Dice,
    trial::Trial,
    writer::{Writer, number_payload, put},
};
use crate::{
    batch::{Batch, Change},
    load::Wanted,
    name::MapName,
    record::{Cause, Deletion, Record, Revision},
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    random_walk(trial).await;
    pages(trial).await;
    some_keys(trial).await;
    changes_in_order(trial).await;
    deletions(trial).await;
}

async fn random_walk(trial: &mut Trial<'_>) {
    trial.check("loads agree with a plain model after random batches");
    let map = trial.map("random");
    let mut dice = Dice::new(7);
    let mut writer = Writer::new();
    let mut revisions = vec![Revision::ZERO];
    for step in 0..60 {
        trial.doing(format!("random batch number {step}, then loads"));
        let answer = trial
            .commit(&random_batch(&mut dice, &mut writer, &map))
            .await;
        revisions.push(trial.revision(&answer));
        trial.verify(&map).await;
        for wanted in random_loads(&mut dice, &revisions) {
            trial.verify_wanted(&map, wanted).await;
        }
    }
}

fn random_batch(dice: &mut Dice, writer: &mut Writer, map: &MapName) -> Batch {
    let how_many = dice.roll(30);
    let keys: BTreeSet<u64> = (0..how_many).map(|_| dice.roll(60)).collect();
    let changes = keys.into_iter().map(|n| random_change(dice, writer, n));
    let changes = changes.collect();
    if dice.roll(12) == 0 {
        return writer.clearing(map, changes);
    }
    writer.batch(map, changes)
}

fn random_change(dice: &mut Dice, writer: &Writer, key: u64) -> Change {
    let key = random_key(key);
    let seconds = Duration::from_secs(dice.roll(100));
    let expires_at = (dice.roll(2) == 0).then(|| writer.at + seconds);
    match dice.roll(6) {
        0 => Change::delete(key),
        1 => Change::touch(key, expires_at),
        _ => Change::put(key, number_payload(dice.roll(1_000)), expires_at),
    }
}

/// Keys that sort differently by bytes, by number, by letter and by UTF-16 unit.
fn random_key(number: u64) -> String {
    let first = ["a", "B", "é", "", "Z", "🦀", "\u{ffff}"];
    let pick = usize::try_from(number).unwrap_or(0) % first.len();
    format!("{}{number}", first[pick])
}

fn random_loads(dice: &mut Dice, revisions: &[Revision]) -> [Wanted; 4] {
    let keys = (0..dice.roll(10)).map(|_| random_key(dice.roll(80)).into());
    let keys = Wanted::Keys(keys.collect());
    let after = (dice.roll(4) > 0).then(|| random_key(dice.roll(80)).into());
    let limit = usize::try_from(dice.roll(20)).unwrap_or(0);
    let known = usize::try_from(dice.roll(revisions.len() as u64)).unwrap_or(0);
    let changed = Wanted::changed(revisions[known]);
    let between = Wanted::changed(Revision::new(revisions[known].get().saturating_sub(1)));
    [keys, Wanted::page(after, limit), changed, between]
}

async fn pages(trial: &mut Trial<'_>) {
    trial.check("page after page, in the order of the keys' bytes");
    let map = trial.map("pages");
    let mut writer = Writer::new();
    let keys: Vec<String> = super::values::keys();
    let changes = keys.iter().map(|key| put(key, 1)).collect();
    trial.commit(&writer.batch(&map, changes)).await;
    let mut sorted: Vec<Arc<str>> = keys.iter().map(|key| key.as_str().into()).collect();
    sorted.sort_unstable();
    for limit in [1, 7, 1_000, usize::MAX] {
        let mut after = None;
        for page in sorted.chunks(limit) {
            trial.doing(format!("load a page of {limit} after {after:.40?}"));
            trial.verify_wanted(&map, Wanted::page(after, limit)).await;
            after = page.last().cloned();
        }
        trial.verify_wanted(&map, Wanted::page(after, limit)).await;
    }
    trial.doing("load a page of 0");
    trial.verify_wanted(&map, Wanted::page(None, 0)).await;
}

async fn some_keys(trial: &mut Trial<'_>) {
    trial.check("some keys, also missing and repeated ones");
    let map = trial.map("some");
    let mut writer = Writer::new();
    let changes = (0..3_000).map(|n| put(&format!("key {n}"), n)).collect();
    trial.commit(&writer.batch(&map, changes)).await;
    for wanted in [
        &[][..],
        &["none"],
        &["key 1", "key 1"],
        &["key 2", "none", "key 3", "key 2"],
    ] {
        let keys = wanted.iter().map(|key| Arc::from(*key)).collect();
        trial.verify_wanted(&map, Wanted::Keys(keys)).await;
    }
    trial.doing("load 6,000 keys, half of them missing");
    let keys = (0..6_000).map(|n| format!("key {n}").into()).collect();
    trial.verify_wanted(&map, Wanted::Keys(keys)).await;
}

async fn changes_in_order(trial: &mut Trial<'_>) {
    if trial.claims().sharded {
        return trial.leave_out("changes in order", "the keys are on several stores");
    }
    trial.check("changes in the order of their revisions, never half a commit");
    let map = trial.map("in order");
    let mut writer = Writer::new();
    let mut revisions = vec![Revision::ZERO];
    for keys in [&["z", "y"][..], &["m"], &["a", "b", "c"], &["y", "q"]] {
        let changes = keys.iter().map(|key| put(key, 1)).collect();
        let committed = trial.commit(&writer.batch(&map, changes)).await;
        revisions.push(trial.revision(&committed));
    }
    // The remaining records of each commit: z, m, a b c, y q.
    let sizes = [1, 1, 3, 2];
    for known in 0..=4 {
        for limit in 0..=8 {
            let left = sizes.iter().enumerate().skip(known);
            let (mut expected, mut last) = (0, known);
            for (n, size) in left.take_while(|_| limit > 0) {
                if expected >= limit {
                    break;
                }
                (expected, last) = (expected + size, n + 1);
            }
            trial.doing(format!("load {limit} changes after commit {known}"));
            let wanted = Wanted::some_changed(revisions[known], limit);
            let load = trial.load(&map, wanted).await;
            let horizon = load.horizon;
            let records = trial.expect_ok(load.into_records().await);
            let is_sorted = records.is_sorted_by_key(|record| record.revision);
            trial.ensure(is_sorted, "records in the order of revisions", &records);
            let count = format!("{expected} records, up to commit {last}");
            trial.ensure(records.len() == expected, &count, &records);
            let reaches = horizon >= revisions[last];
            let is_cut = last < 4;
            let ends = reaches && (!is_cut || horizon == revisions[last]);
            trial.ensure(
                ends,
                "a horizon that is the last commit of the answer",
                horizon,
            );
        }
    }
}

async fn deletions(trial: &mut Trial<'_>) {
    if !trial.claims().deletions {
        return trial.leave_out("deletions among the changes", "not claimed");
    }
    trial.check("deletions among the changes");
    let map = trial.map("deletions");
    let mut writer = Writer::new();
    let keys = ["a", "b", "c", "d"];
    let changes = keys.map(|key| put(key, 1)).into();
    let first = trial.commit(&writer.batch(&map, changes)).await;
    let known = trial.revision(&first);
    let expired = Change::delete("d").because(Cause::Expired);
    let changes = ["a", "b", "none"].map(Change::delete).into_iter();
    let batch = writer.batch(&map, changes.chain([expired]).collect());
    let deleted = trial.commit(&batch).await;
    let deleted = trial.revision(&deleted);
    trial.doing("delete a and b, expire d, and put b again");
    trial.commit(&writer.batch(&map, vec![put("b", 2)])).await;
    let load = trial.load(&map, Wanted::changed(known)).await;
    let mut records = trial.expect_ok(load.into_records().await);
    let tombstone = |key, cause| {
        let deletion = Deletion::new(cause, batch.id.writer);
        Record::deleted(key, deleted, deletion).with_updated_at(Some(batch.at))
    };
    let last = records.pop().map(|record| record.key);
    trial.ensure(last.as_deref() == Some("b"), "the record of b last", &last);
    records.sort_by(|a, b| a.key.cmp(&b.key));
    let expected = [
        tombstone("a", Cause::Removed),
        tombstone("d", Cause::Expired),
    ];
    let is_told = records == expected;
    trial.ensure(
        is_told,
        "tombstones of a and d with cause and writer",
        &records,
    );
    trial.verify(&map).await;
    trial.doing("clear all and put c again");
    let cleared = trial
        .commit(&writer.clearing(&map, vec![put("c", 2)]))
        .await;
    let cleared = trial.revision(&cleared);
    let load = trial.load(&map, Wanted::changed(known)).await;
    let told = load.cleared;
    let records = trial.expect_ok(load.into_records().await);
    trial.ensure(told == Some(cleared), "the revision of the clear", told);
    let is_alone = records.len() == 1 && &*records[0].key == "c";
    trial.ensure(
        is_alone,
        "the record of c alone: a clear leaves no tombstones",
        &records,
    );
    let load = trial.load(&map, Wanted::changed(cleared)).await;
    trial.ensure(
        load.cleared.is_none(),
        "no clear after that of the last one",
        &load,
    );
    trial.verify(&map).await;
}
