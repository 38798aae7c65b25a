//! Maps that are copied from one provider to another.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use persistify::{
    Change, ErrorKind, Load, MapName, Memory, Payload, Provider, Record, Result, Wanted, copy,
    testing::{Fault, Faulty, Method},
};

use crate::support::{as_it_is, open, put, write_as_another};
#[cfg(feature = "json")]
use persistify::{JsonFile, PersistentMap};

#[cfg(all(feature = "json", feature = "sqlite", feature = "postgres"))]
mod databases;
#[cfg(all(feature = "json", feature = "sqlite"))]
mod kills;

const MAP: [&str; 1] = ["map"];

fn silent(_: u64, _: Option<u64>) {}

/// Records of all kinds: schema versions, expiries, expired ones, and some that not every store
/// can decode.
fn changes() -> Vec<Change> {
    let now = SystemTime::now();
    let shaped = Payload::json("{\"b\":[1e2,1.50,\"\\u00e9\"],\"a\":null}").with_schema(7);
    let big = format!("\"{}\"", "x".repeat(100_000));
    let mut changes = vec![
        Change::put("shaped", shaped, Some(now + Duration::from_hours(1))),
        Change::put(
            "expired",
            Payload::json("1"),
            Some(now - Duration::from_hours(1)),
        ),
        put("", "\"the empty key\""),
        put(
            "precise",
            "123456789012345678901234567890.000000000000000000001",
        ),
        put("big", &big),
    ];
    changes.extend((0..2_500).map(|n| put(&format!("key {n}"), &n.to_string())));
    changes
}

async fn filled() -> Memory {
    let store = Memory::new();
    write_as_another(&store, changes()).await;
    store
}

type Held = BTreeMap<String, (u32, String, Option<Duration>)>;

/// Schema version, text and expiry (in milliseconds) of each record.
async fn held(store: &dyn Provider) -> Held {
    let held = |record: Record| {
        let payload = record.value.unwrap();
        let text = String::from_utf8(payload.bytes.to_vec()).unwrap();
        let ends = record.expires_at.map(|at| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            Duration::from_millis(u64::try_from(since.as_millis()).unwrap())
        });
        (payload.schema, text, ends)
    };
    let records = crate::support::records(store).await.into_iter();
    records.map(|(key, record)| (key, held(record))).collect()
}

#[tokio::test]
async fn a_copied_record_keeps_all_but_its_revision() {
    let (from, to) = (filled().await, Memory::new());
    let seen = Mutex::new(Vec::new());
    let copied = copy(&from, &to, MAP, |records, total| {
        seen.lock().unwrap().push((records, total));
    });
    let copied = copied.await.unwrap();
    assert_eq!(
        (copied.maps, copied.records, copied.written),
        (1, 2_505, 2_505)
    );
    assert!(copied.bytes > 100_000);
    assert_eq!(held(&to).await, held(&from).await);
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.len() > 2, "{seen:?}");
    assert_eq!(seen.last(), Some(&(2_505, Some(2_505))));

    let again = copy(&from, &to, MAP, silent).await.unwrap();
    assert_eq!((again.records, again.written, again.bytes), (2_505, 0, 0));
}

#[cfg(all(feature = "json", feature = "sqlite"))]
#[tokio::test]
async fn from_memory_to_json_files_to_sqlite_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let memory = filled().await;
    let files = persistify::JsonFile::open(folder.path().join("files"))
        .await
        .unwrap();
    let sqlite = persistify::Sqlite::open(folder.path().join("maps.db"))
        .await
        .unwrap();
    let back = Memory::new();
    let all: [Arc<dyn Provider>; 4] = [
        Arc::new(memory),
        Arc::new(files.clone()),
        Arc::new(sqlite),
        Arc::new(back),
    ];
    for pair in all.windows(2) {
        let copied = copy(&pair[0], &pair[1], pair[0].maps().await.unwrap(), silent);
        assert_eq!(copied.await.unwrap().records, 2_505);
        assert_eq!(held(&pair[1]).await, held(&pair[0]).await);
    }
    assert!(!folder.path().join("files/map.journal").exists(), "at rest");
}

/// Copies several maps, in a spawned task.
#[tokio::test]
async fn several_maps_are_copied_whole_and_in_order() {
    let from = filled().await;
    let other = open::<u32>(from.clone(), "other", as_it_is).await;
    other.extend((0..10).map(|n| (n.to_string(), n)));
    other.close().await.unwrap();
    let to = Memory::new();
    let target = to.clone();
    let copied = tokio::spawn(async move { copy(&from, &target, ["other", "map"], silent).await });
    let copied = copied.await.unwrap().unwrap();
    assert_eq!((copied.maps, copied.records), (2, 2_515));
    assert_eq!(held(&to).await.len(), 2_505);
    assert_eq!(to.maps().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_name_that_the_source_does_not_list_is_no_empty_map() {
    let (from, to) = (filled().await, Faulty::new(Memory::new()));
    let error = copy(&from, &to, ["map", "mpa"], silent).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.map()),
        (ErrorKind::Invalid, Some("mpa"))
    );
    let error = copy(&from, &to, ["a/b/../c\n"], silent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(to.calls(Method::Commit), 0);
}

#[tokio::test]
async fn a_target_that_holds_other_keys_is_left_alone() {
    let (from, to) = (filled().await, Faulty::new(Memory::new()));
    write_as_another(to.inner(), vec![put("key 1", "1"), put("theirs", "1")]).await;
    let before = held(to.inner()).await;
    let error = copy(&from, &to, MAP, silent).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.keys()),
        (ErrorKind::Invalid, &["theirs".into()][..])
    );
    assert_eq!(to.calls(Method::Commit), 0);
    assert_eq!(held(to.inner()).await, before);
    // Keys of the source with other values, as an earlier copy may have left them.
    write_as_another(
        to.inner(),
        vec![Change::delete("theirs"), put("key 2", "\"old\"")],
    )
    .await;
    let copied = copy(&from, &to, MAP, silent).await.unwrap();
    assert_eq!(copied.written, 2_504);
    assert_eq!(held(to.inner()).await, held(&from).await);
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_asked_again_and_an_unknown_outcome_resolved() {
    let kind = ErrorKind::Unavailable;
    for fault in [Fault::Before(kind), Fault::Lost(kind), Fault::After(kind)] {
        for method in [Method::Commit, Method::Load, Method::Maps] {
            let (from, to) = (Faulty::new(filled().await), Faulty::new(Memory::new()));
            from.fail_next_of(method, 4, fault.clone());
            to.fail_next_of(method, 4, fault.clone());
            let copied = copy(&from, &to, MAP, silent).await.unwrap();
            assert_eq!(copied.written, 2_505);
            assert_eq!(held(to.inner()).await, held(from.inner()).await);
            let batches = to.batches();
            assert!(
                batches.iter().all(|batch| *batch == batches[0]),
                "not the identical batch"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_attempts_are_spent_a_second_call_goes_on() {
    let kind = ErrorKind::Unavailable;
    for fault in [Fault::Before(kind), Fault::Lost(kind), Fault::After(kind)] {
        let from = Memory::new();
        let many = (0..25_000).map(|n| put(&format!("{n}"), "1"));
        write_as_another(&from, many.collect()).await;
        let to = Faulty::new(Memory::new());
        // The first commit succeeds, later ones fail.
        let second = fault.clone();
        to.set_rule(move |call| match call.method {
            Method::Commit if call.number > 1 => second.clone(),
            _ => Fault::None,
        });
        let error = copy(&from, &to, MAP, silent).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        let there = held(to.inner()).await.len() as u64;
        assert!(there == 10_000 || there == 20_000);
        to.behave();
        let copied = copy(&from, &to, MAP, silent).await.unwrap();
        assert_eq!((copied.records, copied.written), (25_000, 25_000 - there));
        assert_eq!(held(to.inner()).await, held(&from).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_names_the_records_that_the_target_refuses() {
    let (from, to) = (filled().await, Faulty::new(Memory::new()));
    to.refuse(["precise"]);
    let error = copy(&from, &to, MAP, silent).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.keys()),
        (ErrorKind::Refused, &["precise".into()][..])
    );
    to.behave();
    copy(&from, &to, MAP, silent).await.unwrap();
}

type Rewrite = fn(&mut Vec<Record>);

/// A target that returns other values than it was given.
#[derive(Debug)]
struct Rewriting {
    inner: Memory,
    rewrite: Rewrite,
}

#[async_trait]
impl persistify::Layer for Rewriting {
    fn inner(&self) -> &dyn Provider {
        &self.inner
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let load = self.inner.load(map, wanted).await?;
        let horizon = load.horizon;
        let mut records = load.into_records().await?;
        if !records.is_empty() {
            (self.rewrite)(&mut records);
        }
        Ok(Load::of(horizon, records))
    }
}

async fn copy_to(rewrite: Rewrite) -> Result<persistify::Copied> {
    let inner = Memory::new();
    let to = Rewriting { inner, rewrite };
    copy(&filled().await, &to, MAP, silent).await
}

fn of<'a>(records: &'a mut [Record], key: &str) -> &'a mut Record {
    records
        .iter_mut()
        .find(|record| &*record.key == key)
        .unwrap()
}

/// A target that reformats JSON, as a database does, compares equal. A target that changes a record
/// does not.
#[tokio::test]
async fn the_two_are_compared_by_what_the_json_means() {
    let as_jsonb = copy_to(|records| {
        let record = of(records, "shaped");
        let text = "{ \"a\": null, \"b\": [100, 1.50, \"é\"] }";
        record.value = Some(Payload::json(text).with_schema(7));
        of(records, "key 7").value = Some(Payload::json("7.0"));
    });
    as_jsonb.await.unwrap();
    let flaws: [(Rewrite, &str); 6] = [
        (
            |all| of(all, "key 7").value = Some(Payload::json("8")),
            "key 7",
        ),
        (
            |all| of(all, "key 7").value = Some(Payload::json("\"7\"")),
            "key 7",
        ),
        (
            |all| of(all, "key 7").value = Some(Payload::json("7").with_schema(1)),
            "key 7",
        ),
        (
            |all| of(all, "key 7").expires_at = Some(SystemTime::UNIX_EPOCH),
            "key 7",
        ),
        (|all| all.retain(|record| &*record.key != "key 7"), "key 7"),
        (
            |all| of(all, "precise").value = Some(Payload::json(ROUNDED)),
            "precise",
        ),
    ];
    for (flaw, key) in flaws {
        let error = copy_to(flaw).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        assert_eq!(error.keys(), [key.into()], "{error:?}");
        assert!(error.to_string().contains("2505 records"), "{error}");
    }
}

const ROUNDED: &str = "123456789012345678901234567890";

/// After an error, neither provider had released the maps: files stayed locked until the
/// handle was dropped.
#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_releases_all_maps_of_both_stores() {
    let (from, to) = (Faulty::new(filled().await), Faulty::new(Memory::new()));
    to.down(ErrorKind::Unusable);
    copy(&from, &to, MAP, silent).await.unwrap_err();
    assert_eq!(from.calls(Method::Release), 1);
    assert_eq!(to.calls(Method::Release), 1);
}

/// Both maps are released at the end. If a map is open, it stays open, and saves later
/// changes.
#[cfg(feature = "json")]
#[tokio::test]
async fn a_map_that_is_open_while_it_is_copied_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let files = JsonFile::open(folder.path()).await.unwrap();
    let open = || PersistentMap::<u64>::builder(files.clone(), "map").open();
    let map = open().await.unwrap();
    map.insert_and_save("before", 1).await.unwrap();
    let copied = copy(&files, &Memory::new(), MAP, silent).await.unwrap();
    assert_eq!(copied.records, 1);
    map.insert_and_save("after", 2).await.unwrap();
    map.close().await.unwrap();
    assert_eq!(open().await.unwrap().len(), 2);
}
