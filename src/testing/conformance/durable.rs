//! What was committed is still there after the store is reopened.

use std::time::Duration;

use super::{
    trial::{End, Trial},
    values,
    writer::{Writer, number_payload, put},
};
use crate::{
    batch::{Change, MapBatch},
    record::Payload,
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    if !trial.claims().durable {
        return trial.leave_out("opening again", "not claimed");
    }
    everything(trial).await;
    commit_by_commit(trial).await;
    cleared(trial).await;
    released(trial).await;
    several_maps(trial).await;
}

async fn everything(trial: &mut Trial<'_>) {
    trial.check("keys, values and times are there when it is opened again");
    let map = trial.map("everything");
    let mut writer = Writer::new();
    let later = Some(writer.at + Duration::from_secs(60));
    let keys = values::keys().into_iter().zip(0..);
    let keys = keys.map(|(key, n)| Change::put(key, number_payload(n), later));
    let texts = values::values().into_iter().chain([values::big()]).zip(0..);
    let texts = texts.map(|(text, n)| Change::put(format!("value {n}"), Payload::json(text), None));
    trial.commit(&writer.batch(&map, keys.collect())).await;
    trial.commit(&writer.batch(&map, texts.collect())).await;
    for end in [End::Dropped, End::Closed, End::Dropped] {
        trial.doing(format!("commit, open again ({end:?} before), load"));
        trial.reopen(end).await;
        trial.verify(&map).await;
        let touch = Change::touch("value 1", later);
        trial.commit(&writer.batch(&map, vec![touch])).await;
    }
}

async fn commit_by_commit(trial: &mut Trial<'_>) {
    trial.check("each commit is there when it is opened again");
    let map = trial.map("commit by commit");
    let mut writer = Writer::new();
    for number in 0..6 {
        let end = if number % 3 == 0 {
            End::Closed
        } else {
            End::Dropped
        };
        trial.doing(format!(
            "commit number {number}, open again ({end:?} before), load"
        ));
        let mut changes = vec![put("same", number), put(&format!("key {number}"), number)];
        changes.extend(
            number
                .checked_sub(2)
                .map(|n| Change::delete(format!("key {n}"))),
        );
        trial.commit(&writer.batch(&map, changes)).await;
        trial.reopen(end).await;
        trial.verify(&map).await;
    }
}

async fn cleared(trial: &mut Trial<'_>) {
    trial.check("what was cleared is gone when it is opened again");
    let map = trial.map("cleared");
    let mut writer = Writer::new();
    for end in [End::Closed, End::Dropped] {
        let changes = (0..100).map(|n| put(&format!("key {n}"), n)).collect();
        trial.commit(&writer.batch(&map, changes)).await;
        trial.reopen(end).await;
        trial
            .commit(&writer.clearing(&map, vec![put("key 7", 0)]))
            .await;
        trial.reopen(end).await;
        trial.verify(&map).await;
    }
}

async fn released(trial: &mut Trial<'_>) {
    trial.check("a map that was released is there when it is opened again");
    let map = trial.map("released");
    let mut writer = Writer::new();
    for (end, number) in [(End::Dropped, 1), (End::Closed, 2)] {
        trial
            .commit(&writer.batch(&map, vec![put("a", number)]))
            .await;
        trial.expect_ok(trial.provider().release(&map).await);
        trial.reopen(end).await;
        trial.verify(&map).await;
        trial
            .commit(&writer.batch(&map, vec![put("b", number)]))
            .await;
        trial.verify(&map).await;
    }
}

async fn several_maps(trial: &mut Trial<'_>) {
    trial.check("all maps are there when it is opened again");
    let maps: Vec<_> = (0..8).map(|n| trial.map(&format!("map {n}"))).collect();
    let mut writer = Writer::new();
    for map in &maps {
        trial.commit(&writer.batch(map, vec![put("a", 1)])).await;
        writer.sequence += 1;
    }
    if trial.claims().several_maps {
        let parts = maps
            .iter()
            .map(|map| MapBatch::new(map.clone(), vec![put("b", 2)]));
        trial.commit(&writer.batch_of(parts.collect())).await;
    }
    for end in [End::Dropped, End::Closed] {
        trial.reopen(end).await;
        trial.verify_all().await;
    }
}
