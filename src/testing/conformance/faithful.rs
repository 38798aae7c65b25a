//! Loads return what was committed.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    bytes, horizon, loads,
    trial::Trial,
    values,
    writer::{Writer, number_payload, put, whole_milliseconds},
};
use crate::{
    batch::{Change, MapBatch},
    error::ErrorKind,
    load::Wanted,
    name::MapName,
    record::Payload,
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    empty_map(trial).await;
    put_overwrite_delete(trial).await;
    touch(trial).await;
    clear(trial).await;
    empty_batches(trial).await;
    times(trial).await;
    schema_versions(trial).await;
    keys(trial).await;
    values(trial).await;
    nul_in_a_value(trial).await;
    bytes::run(trial).await;
    big_batch(trial).await;
    loads::run(trial).await;
    horizon::run(trial).await;
    released(trial).await;
}

async fn empty_map(trial: &mut Trial<'_>) {
    trial.check("a map that was never written to is empty");
    let map = trial.map("empty");
    let keys: Arc<[Arc<str>]> = ["a".into()].into();
    let changed = Wanted::changed(super::model::Model::default().last);
    let page = Wanted::page(None, 10);
    for wanted in [Wanted::All, Wanted::Keys(keys), page, changed] {
        trial.verify_wanted(&map, wanted).await;
    }
}

async fn put_overwrite_delete(trial: &mut Trial<'_>) {
    trial.check("put, overwrite, delete");
    let map = trial.map("basics");
    let mut writer = Writer::new();
    let steps = [
        ("put two keys", vec![put("a", 1), put("b", 1)]),
        ("overwrite one, put another", vec![put("a", 2), put("c", 2)]),
        ("delete one", vec![Change::delete("b")]),
        ("delete what is not there", vec![Change::delete("b")]),
        (
            "delete and put at once",
            vec![Change::delete("a"), put("b", 3)],
        ),
        ("put what is there again", vec![put("b", 3)]),
        (
            "put what is likely to be new, and is not",
            vec![put("b", 4).likely_new(true), put("d", 4).likely_new(true)],
        ),
        (
            "delete all, one by one",
            ["b", "c", "d"].map(Change::delete).into(),
        ),
        ("put into the emptied map", vec![put("a", 4)]),
    ];
    for (step, changes) in steps {
        trial.doing(step);
        trial.commit(&writer.batch(&map, changes)).await;
        trial.verify(&map).await;
    }
}

async fn touch(trial: &mut Trial<'_>) {
    trial.check("touch");
    let map = trial.map("touch");
    let mut writer = Writer::new();
    let later = writer.at + Duration::from_secs(60 * 60);
    let steps = [
        ("put two keys", vec![put("a", 1), put("b", 1)]),
        (
            "touch one: its value and updated_at stay, its revision is that of the commit",
            vec![Change::touch("a", Some(later))],
        ),
        (
            "touch what is not there",
            vec![Change::touch("none", Some(later))],
        ),
        (
            "touch it so that it never expires",
            vec![Change::touch("a", None)],
        ),
        (
            "touch and put others at once",
            vec![Change::touch("b", Some(later)), put("c", 2)],
        ),
        ("overwrite a touched one", vec![put("b", 3)]),
    ];
    for (step, changes) in steps {
        trial.doing(step);
        writer.at += Duration::from_secs(1);
        trial.commit(&writer.batch(&map, changes)).await;
        trial.verify(&map).await;
    }
}

async fn clear(trial: &mut Trial<'_>) {
    trial.check("clear, then changes");
    let map = trial.map("clear");
    let mut writer = Writer::new();
    trial.doing("clear what was never written to");
    trial.commit(&writer.clearing(&map, vec![])).await;
    trial.verify(&map).await;
    trial
        .commit(&writer.batch(&map, (0..50).map(numbered).collect()))
        .await;
    trial.doing("clear, put one of the keys and a new one, touch and delete old ones");
    let touched = Change::touch("key 8", Some(writer.at));
    let changes = vec![
        put("key 7", 7),
        put("new", 1),
        touched,
        Change::delete("key 9"),
    ];
    trial.commit(&writer.clearing(&map, changes)).await;
    trial.verify(&map).await;
    trial.doing("clear all");
    trial.commit(&writer.clearing(&map, vec![])).await;
    trial.verify(&map).await;
    trial.doing("put after a clear");
    trial.commit(&writer.batch(&map, vec![put("a", 1)])).await;
    trial.verify(&map).await;
}

fn numbered(number: u64) -> Change {
    put(&format!("key {number}"), number)
}

async fn empty_batches(trial: &mut Trial<'_>) {
    trial.check("empty batches");
    let map = trial.map("nothing");
    let mut writer = Writer::new();
    trial.commit(&writer.batch(&map, vec![put("a", 1)])).await;
    trial.doing("commit a batch of no maps, twice");
    let batch = writer.batch_of(vec![]);
    let answer = trial.commit(&batch).await;
    trial.repeat(&batch, &answer).await;
    trial.verify(&map).await;
    trial.doing("commit a batch of one map and no changes");
    trial.commit(&writer.batch(&map, vec![])).await;
    trial.verify(&map).await;
}

async fn times(trial: &mut Trial<'_>) {
    trial.check("times, to the millisecond");
    let map = trial.map("times");
    let mut writer = Writer::new();
    let now = whole_milliseconds(SystemTime::now());
    let epoch = SystemTime::UNIX_EPOCH;
    let expiries = [
        None,
        Some(epoch),
        Some(epoch + Duration::from_millis(1)),
        Some(now - Duration::from_secs(60)),
        Some(now),
        Some(now + Duration::from_millis(1)),
        Some(now + Duration::from_nanos(123_999_999)),
        Some(now + Duration::from_secs(100 * 366 * 24 * 60 * 60)),
    ];
    for (n, expires_at) in expiries.into_iter().enumerate() {
        trial.doing(format!("put and touch, to expire at {expires_at:?}"));
        writer.at = now + Duration::from_micros(7_654_321 * n as u64);
        let put = Change::put(format!("put {n}"), number_payload(1), expires_at);
        let other = Change::put(format!("touch {n}"), number_payload(2), None);
        trial.commit(&writer.batch(&map, vec![put, other])).await;
        let touch = Change::touch(format!("touch {n}"), expires_at);
        trial.commit(&writer.batch(&map, vec![touch])).await;
        trial.verify(&map).await;
    }
    trial.doing("put what was written before the batch, among others");
    let early = put("early", 1).written_at(Some(now - Duration::from_secs(60)));
    let late = put("late", 1).written_at(Some(now - Duration::from_secs(1)));
    let changes = vec![put("a", 1), early, put("b", 1), late, put("c", 1)];
    trial.commit(&writer.batch(&map, changes)).await;
    trial.verify(&map).await;
}

async fn schema_versions(trial: &mut Trial<'_>) {
    trial.check("the schema version of a value");
    let map = trial.map("schema versions");
    let mut writer = Writer::new();
    for schema in [7, u32::MAX] {
        trial.doing(format!("put values of schema version {schema}"));
        let payload = |n| number_payload(n).with_schema(schema);
        let put = |n: u64| Change::put(format!("key {n}"), payload(n), None);
        let batch = writer.batch(&map, (0..3).map(put).collect());
        trial.commit(&batch).await;
        trial.verify(&map).await;
    }
    several_shapes(trial, &map, &mut writer).await;
}

/// An updated program writes values of a new schema version beside older ones. When it loads
/// them, it migrates each value from the version that is stored with it.
async fn several_shapes(trial: &mut Trial<'_>, map: &MapName, writer: &mut Writer) {
    trial.check("values of several schema versions in a map");
    trial.doing("put a value of another schema version beside them");
    let payload = number_payload(1).with_schema(1);
    let change = Change::put("other", payload, None);
    trial.commit(&writer.batch(map, vec![change])).await;
    trial.verify(map).await;
    trial.doing("overwrite a value with one of another schema version, touch one, delete one");
    let later = writer.at + Duration::from_secs(60 * 60);
    let overwrite = Change::put("key 0", number_payload(2).with_schema(8), None);
    let changes = vec![
        overwrite,
        Change::touch("key 1", Some(later)),
        Change::delete("key 2"),
    ];
    trial.commit(&writer.batch(map, changes)).await;
    trial.verify(map).await;
}

async fn keys(trial: &mut Trial<'_>) {
    trial.check("any key, exactly as it was written");
    let map = trial.map("keys");
    let mut writer = Writer::new();
    let keys = values::keys();
    let all = keys.iter().zip(0..).map(|(key, n)| put(key, n));
    trial.commit(&writer.batch(&map, all.collect())).await;
    trial.verify(&map).await;
    for key in &keys {
        trial.doing(format!("load the key {key:.40?} alone"));
        let one: Arc<[Arc<str>]> = [key.as_str().into()].into();
        trial.verify_wanted(&map, Wanted::Keys(one)).await;
    }
    trial.doing("overwrite every other of these keys, delete the rest");
    let changes = keys.iter().zip(0..).map(|(key, n)| match n % 2 {
        0 => put(key, n + 1_000),
        _ => Change::delete(key.as_str()),
    });
    trial.commit(&writer.batch(&map, changes.collect())).await;
    trial.verify(&map).await;
}

async fn values(trial: &mut Trial<'_>) {
    trial.check("any value");
    let map = trial.map("values");
    let mut writer = Writer::new();
    for (n, text) in values::values().into_iter().enumerate() {
        trial.doing(format!("put the value {text:.40}"));
        let change = Change::put(format!("key {n}"), Payload::json(text), None);
        trial.commit(&writer.batch(&map, vec![change])).await;
        let key: Arc<[Arc<str>]> = [format!("key {n}").into()].into();
        trial.verify_wanted(&map, Wanted::Keys(key)).await;
    }
    trial.doing("put a value of 1 MiB");
    let change = Change::put("big", Payload::json(values::big()), None);
    trial.commit(&writer.batch(&map, vec![change])).await;
    trial.doing("load all these values");
    trial.verify(&map).await;
}

/// Some databases do not support NUL in a text. They may refuse such a key.
async fn nul_in_a_value(trial: &mut Trial<'_>) {
    let name = "a NUL in a value";
    let map = trial.map("nul");
    let payload = Payload::json(r#""a\u0000b""#);
    let changes = vec![put("a", 1), Change::put("nul", payload, None)];
    let batch = Writer::new().batch(&map, changes);
    trial.doing(format!("put {name}"));
    match trial.provider().commit(&batch).await {
        Ok(answer) => {
            trial.check(name);
            trial.accept(&batch, &answer);
        }
        Err(error) if error.kind() == ErrorKind::Refused => {
            let blamed = error.keys().iter().all(|key| **key == *"nul");
            trial.ensure(blamed, "no other key to be blamed", &error);
            trial.leave_out(name, "it refuses it");
        }
        Err(error) => trial.broken("success, or that it is refused", error),
    }
    trial.verify(&map).await;
}

async fn big_batch(trial: &mut Trial<'_>) {
    trial.check("5,000 changes in a batch");
    let map = trial.map("many");
    let mut writer = Writer::new();
    let batch = writer.batch(&map, (0..5_000).map(numbered).collect());
    trial.commit(&batch).await;
    trial.verify(&map).await;
    trial.doing("touch, delete and overwrite 5,000 keys in a batch");
    let later = writer.at + Duration::from_secs(60);
    let changes = (0..5_000_u64).map(|n| match n % 3 {
        0 => Change::touch(format!("key {n}"), Some(later)),
        1 => Change::delete(format!("key {n}")),
        _ => put(&format!("key {n}"), n + 1),
    });
    trial.commit(&writer.batch(&map, changes.collect())).await;
    trial.verify(&map).await;
}

async fn released(trial: &mut Trial<'_>) {
    trial.check("a map that was released can be used again");
    let map = trial.map("released");
    let mut writer = Writer::new();
    trial.expect_ok(trial.provider().release(&map).await);
    for number in 0..3 {
        trial
            .commit(&writer.batch(&map, vec![numbered(number)]))
            .await;
        trial.expect_ok(trial.provider().release(&map).await);
        trial.verify(&map).await;
        trial.expect_ok(trial.provider().release(&map).await);
    }
    let other = MapBatch::new(map.clone(), vec![Change::delete("key 0")]);
    trial.commit(&writer.batch_of(vec![other])).await;
    trial.verify(&map).await;
}
