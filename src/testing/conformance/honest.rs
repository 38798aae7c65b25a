//! The provider does what its capabilities say, and refuses what it cannot do.

use super::{
    conditions,
    trial::{End, Trial},
    writer::{Writer, put},
};
use crate::{
    batch::{Change, Expect, MapBatch, Otherwise},
    error::{ErrorKind, Result},
    load::Wanted,
    name::MapName,
    provider::Provider,
    record::Payload,
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    trial.check("a ping");
    trial.expect_ok(trial.provider().ping().await);
    heartbeat(trial);
    if trial.claims().conditions {
        conditions::run(trial).await;
    } else {
        no_conditions(trial).await;
    }
    if trial.claims().several_maps {
        several_maps(trial).await;
    } else {
        one_map_only(trial).await;
    }
    if !trial.claims().bytes {
        no_bytes(trial).await;
    }
    closed(trial).await;
}

/// All heartbeats of a provider must be one signal: maps wake each other through it.
fn heartbeat(trial: &mut Trial<'_>) {
    let Some(first) = trial.provider().heartbeat() else {
        return trial.leave_out("the heartbeat", "it has none");
    };
    trial.check("every heartbeat that it hands out is the same signal");
    let heard = first.listen();
    if let Some(second) = trial.provider().heartbeat() {
        second.beat();
    }
    let same = heard.has_changed().unwrap_or_default();
    trial.ensure(same, "the same signal as before", "another one, or none");
}

async fn no_conditions(trial: &mut Trial<'_>) {
    trial.leave_out("conditions", "not claimed");
    trial.check("conditions are refused before anything is written");
    let map = trial.map("no conditions");
    let mut writer = Writer::new();
    let first = trial.commit(&writer.batch(&map, vec![put("a", 1)])).await;
    let revision = trial.revision(&first);
    for expect in [Expect::Absent, Expect::Present, Expect::At(revision)] {
        for otherwise in [Otherwise::Fail, Otherwise::Skip] {
            trial.doing(format!(
                "commit a change that expects {expect:?}, or else {otherwise:?}"
            ));
            let changes = vec![put("b", 2), put("a", 2).expect(expect, otherwise)];
            let part = MapBatch::new(map.clone(), changes).clearing(true);
            let batch = writer.batch_of(vec![part]);
            trial.commit_fails(&batch, ErrorKind::Unsupported).await;
        }
    }
}

async fn several_maps(trial: &mut Trial<'_>) {
    trial.check("a batch of several maps");
    let maps = ["one", "two", "three"].map(|name| trial.map(name));
    let mut writer = Writer::new();
    for number in 0..3 {
        let parts = maps.iter().enumerate().map(|(n, map)| {
            let own = format!("key of {n}");
            let part = MapBatch::new(map.clone(), vec![put("a", number), put(&own, number)]);
            part.clearing(number == 2 && n == 1)
        });
        trial.commit(&writer.batch_of(parts.collect())).await;
        trial.verify_all().await;
    }
}

async fn one_map_only(trial: &mut Trial<'_>) {
    trial.leave_out("batches of several maps", "not claimed");
    trial.check("batches of several maps are refused before anything is written");
    let maps = ["one", "two"].map(|name| trial.map(name));
    let part = |map: &MapName| MapBatch::new(map.clone(), vec![put("a", 1)]);
    let batch = Writer::new().batch_of(maps.iter().map(part).collect());
    trial.commit_fails(&batch, ErrorKind::Unsupported).await;
}

async fn no_bytes(trial: &mut Trial<'_>) {
    trial.check("values of bytes are refused before anything is written");
    let map = trial.map("no bytes");
    let change = Change::put("b", Payload::binary(b"1".to_vec()), None);
    let batch = Writer::new().batch(&map, vec![put("a", 1), change]);
    trial.commit_fails(&batch, ErrorKind::Unsupported).await;
}

async fn closed(trial: &mut Trial<'_>) {
    let map = trial.map("closed");
    let mut writer = Writer::new();
    trial.doing("close, go on using it, open again");
    trial.commit(&writer.batch(&map, vec![put("a", 1)])).await;
    let provider = trial.provider().clone();
    trial.expect_ok(provider.close().await);
    let told = told_closed(trial, provider.load(&map, Wanted::All).await.map(drop))
        & told_closed(trial, provider.ping().await.map(drop))
        & told_closed(trial, provider.release(&map).await)
        & told_closed(trial, commit_after_close(trial, &*provider).await);
    drop(provider);
    if told {
        trial.check("every call after a close is answered `Closed`");
    } else {
        trial.leave_out("`Closed` after a close", "it goes on working");
    }
    trial.check("a store that was closed opens again");
    trial.reopen(End::Dropped).await;
    if trial.claims().durable {
        trial.verify(&map).await;
    }
    let batch = writer.clearing(&map, vec![put("b", 2)]);
    trial.commit(&batch).await;
    trial.verify(&map).await;
}

async fn commit_after_close(trial: &Trial<'_>, provider: &dyn Provider) -> Result<()> {
    let map = trial.map("after the close");
    let batch = Writer::new().batch(&map, vec![put("a", 1)]);
    provider.commit(&batch).await.map(drop)
}

fn told_closed(trial: &Trial<'_>, result: Result<()>) -> bool {
    match result {
        Ok(()) => false,
        Err(error) if error.kind() == ErrorKind::Closed => true,
        Err(error) => trial.broken("`Closed`, or that it goes on working", error),
    }
}
