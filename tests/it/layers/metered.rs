//! The metrics of the calls of a store, and those of a map.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use persistify::{
    CachingMap, ErrorKind, MapBatch, Memory, Metered, PersistentMap, Provider, ProviderExt, Result,
    Wanted,
    testing::{Fault, Hang, Method, conformance},
};
use tokio::time::{advance, sleep, timeout};

use crate::support::{
    HOUR, Pen, SECOND, Store, TestRecorder, as_it_is, impatient, name, open, open_caching, put,
    settle, store, warnings_of,
};

#[tokio::test]
async fn a_metered_store_in_memory_conforms() {
    let store = Memory::new();
    conformance(async || Ok(store.clone().layer(Metered::new("main")))).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn metered_json_files_conform() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let folder = tempfile::tempdir().unwrap();
    let open = async || persistify::JsonFile::open(folder.path()).await;
    conformance(async || Ok(open().await?.layer(Metered::new("main")))).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_metered_sqlite_file_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    let open = async || persistify::Sqlite::open(&path).await;
    conformance(async || Ok(open().await?.layer(Metered::new("main").slow(HOUR)))).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn metered_postgres_conforms() {
    let database = crate::postgres::Database::fresh();
    let open = async || persistify::Postgres::connect(database.url()).await;
    conformance(async || Ok(open().await?.layer(Metered::new("main")))).await;
}

/// A store that is measured by the recorder, and the store below.
fn metered() -> (Store, Metered<Store>) {
    let store = store();
    (store.clone(), store.layer(Metered::new("main")))
}

/// The values of these metrics with the labels of the map `m`.
fn of_map<'a>(all: &'a BTreeMap<String, Vec<f64>>, metric: &str, more: &str) -> &'a [f64] {
    let key = format!("{metric}{{provider=main,map=m{more}}}");
    all.get(&key).map_or(&[], |values| values)
}

/// Makes the next call of this method take a second.
async fn after_a_second<T>(store: &Store, method: Method, call: impl Future<Output = T>) -> T {
    let hang = Hang::new();
    store.fail_next_of(method, 1, Fault::Hang(hang.clone()));
    let release = async {
        hang.hangs().await;
        advance(SECOND).await;
        hang.release();
    };
    tokio::join!(call, release).0
}

#[tokio::test(start_paused = true)]
async fn calls_are_measured_with_their_sizes() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let (store, metered) = metered();
    let (mut pen, map) = (Pen::new(), name("m"));
    let batch = pen.changes(&map, vec![put("a", "1"), put("bc", "23")]);
    after_a_second(&store, Method::Commit, metered.commit(&batch))
        .await
        .unwrap();
    let loaded = async {
        let load = metered.load(&map, Wanted::All).await?;
        load.into_records().await
    };
    after_a_second(&store, Method::Load, loaded).await.unwrap();
    after_a_second(&store, Method::Ping, metered.ping())
        .await
        .unwrap();
    let all = recorder.take();
    let ok = ",outcome=ok";
    assert_eq!(of_map(&all, "persistify_commit_seconds", ok), [1.0]);
    assert_eq!(of_map(&all, "persistify_commit_changes", ""), [2.0]);
    assert_eq!(of_map(&all, "persistify_commit_bytes", ""), [6.0]);
    assert_eq!(of_map(&all, "persistify_load_seconds", ok), [1.0]);
    assert_eq!(of_map(&all, "persistify_load_records", ""), [2.0]);
    assert_eq!(of_map(&all, "persistify_load_bytes", ""), [6.0]);
    assert_eq!(
        all["persistify_ping_seconds{provider=main,outcome=ok}"],
        [1.0]
    );
    assert_eq!(all.len(), 7, "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn errors_are_counted_by_kind() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let (store, metered) = metered();
    let (mut pen, map) = (Pen::new(), name("m"));
    store.fail_next(2, Fault::Before(ErrorKind::Unusable));
    store.fail_nth(3, Fault::After(ErrorKind::Unavailable));
    for _ in 0..3 {
        metered
            .commit(&pen.changes(&map, vec![put("a", "1")]))
            .await
            .unwrap_err();
    }
    store.fail_next_of(Method::Load, 1, Fault::Before(ErrorKind::Corrupt));
    metered.load(&map, Wanted::All).await.unwrap_err();
    store.fail_next_of(Method::Ping, 1, Fault::Before(ErrorKind::Closed));
    metered.ping().await.unwrap_err();
    let all = recorder.take();
    let errors = |kind| of_map(&all, "persistify_errors_total", kind);
    assert_eq!(errors(",kind=unusable"), [2.0]);
    assert_eq!(errors(",kind=unavailable"), [1.0]);
    assert_eq!(errors(",kind=corrupt"), [1.0]);
    assert_eq!(
        all["persistify_errors_total{provider=main,map=,kind=closed}"],
        [1.0]
    );
    // Of failed calls there are no sizes.
    assert!(of_map(&all, "persistify_commit_changes", "").is_empty());
    assert!(of_map(&all, "persistify_load_records", "").is_empty());
}

/// The durations of failed and cancelled calls, in an order by outcome.
fn outcomes(all: &BTreeMap<String, Vec<f64>>, metric: &str) -> [usize; 3] {
    ["ok", "error", "cancelled"]
        .map(|outcome| of_map(all, metric, &format!(",outcome={outcome}")).len())
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_cancelled() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let (store, metered) = metered();
    let (mut pen, map) = (Pen::new(), name("m"));
    store.set_rule(|_| Fault::Hang(Hang::new()));
    let batch = pen.changes(&map, vec![put("a", "1")]);
    timeout(2 * SECOND, metered.commit(&batch))
        .await
        .unwrap_err();
    timeout(SECOND, metered.load(&map, Wanted::All))
        .await
        .unwrap_err();
    timeout(SECOND, metered.ping()).await.unwrap_err();
    // Not polled, so not begun.
    drop(metered.commit(&batch));
    let all = recorder.take();
    let cancelled = ",outcome=cancelled";
    assert_eq!(of_map(&all, "persistify_commit_seconds", cancelled), [2.0]);
    assert_eq!(of_map(&all, "persistify_load_seconds", cancelled), [1.0]);
    assert_eq!(
        all["persistify_ping_seconds{provider=main,outcome=cancelled}"],
        [1.0]
    );
    assert_eq!(all.len(), 3, "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_are_a_gauge() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let (store, metered) = metered();
    let hang = store.hang_next();
    let map = name("m");
    let committing = metered.clone();
    let commit = tokio::spawn(async move {
        let batch = Pen::new().changes(&name("m"), Vec::new());
        committing.commit(&batch).await.map(drop)
    });
    hang.hangs().await;
    let load = metered.load(&map, Wanted::All).await.unwrap();
    let in_flight = || of_map(&recorder.take(), "persistify_calls_in_flight", "").to_vec();
    assert_eq!(in_flight(), [2.0]);
    // The recorder starts again at 0.
    drop(load);
    assert_eq!(in_flight(), [-1.0]);
    hang.release();
    commit.await.unwrap().unwrap();
    assert_eq!(in_flight(), [-1.0]);
}

#[tokio::test(start_paused = true)]
async fn a_load_lasts_until_its_last_page() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let (_, metered) = metered();
    let (mut pen, map) = (Pen::new(), name("m"));
    let many = (0..2_500).map(|n| put(&format!("{n}"), "1")).collect();
    pen.write(&metered, &map, many).await.unwrap();
    recorder.take();
    let mut load = metered.load(&map, Wanted::All).await.unwrap();
    load.pages.next().await.unwrap().unwrap();
    advance(SECOND).await;
    drop(load);
    let all = recorder.take();
    assert_eq!(outcomes(&all, "persistify_load_seconds"), [0, 0, 1]);
    assert!(of_map(&all, "persistify_load_records", "").is_empty());
    let load = metered.load(&map, Wanted::All).await.unwrap();
    advance(SECOND).await;
    load.into_records().await.unwrap();
    let all = recorder.take();
    assert_eq!(
        of_map(&all, "persistify_load_seconds", ",outcome=ok"),
        [1.0]
    );
    assert_eq!(of_map(&all, "persistify_load_records", ""), [2_500.0]);
}

#[tokio::test]
async fn a_commit_to_several_maps_counts_for_each() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let (_, metered) = metered();
    let part = |map, keys: &[&str]| {
        MapBatch::new(name(map), keys.iter().map(|key| put(key, "1")).collect())
    };
    let batch = Pen::new().batch(vec![part("m", &["a"]), part("n", &["b", "cc"])]);
    metered.commit(&batch).await.unwrap();
    let all = recorder.take();
    assert_eq!(of_map(&all, "persistify_commit_changes", ""), [1.0]);
    assert_eq!(all["persistify_commit_changes{provider=main,map=n}"], [2.0]);
    assert_eq!(all["persistify_commit_bytes{provider=main,map=n}"], [5.0]);
}

#[tokio::test]
async fn handles_are_kept_and_metrics_are_described_and_documented() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let (store, metered) = metered();
    let (mut pen, map) = (Pen::new(), name("m"));
    let mut call_all = async || -> Result<()> {
        pen.write(&metered, &map, vec![put("a", "1")]).await?;
        metered
            .load(&map, Wanted::All)
            .await?
            .into_records()
            .await?;
        metered.ping().await.map(drop)
    };
    call_all().await.unwrap();
    let registered = recorder.registered();
    for _ in 0..10 {
        call_all().await.unwrap();
    }
    assert_eq!(recorder.registered(), registered);
    store.fail_next_of(Method::Ping, 1, Fault::Before(ErrorKind::Unusable));
    metered.ping().await.unwrap_err();
    let map = open::<u32>(metered.clone(), "m", as_it_is).await;
    map.record_metrics("main");
    let described = recorder.described();
    let guide = include_str!("../../../src/lib.rs");
    for metric in recorder.take().keys() {
        let metric = metric.split('{').next().unwrap();
        assert!(described.iter().any(|name| name == metric), "{metric}");
    }
    assert_eq!(described.iter().collect::<BTreeSet<_>>().len(), 19);
    for metric in described {
        assert!(guide.contains(&format!("`{metric}`")), "{metric}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_logged() {
    assert!(warnings_of("slow calls").is_empty());
    let store = store();
    let metered = store.clone().layer(Metered::new("main").slow(SECOND));
    let (mut pen, map) = (Pen::new(), name("slow calls"));
    let batch = pen.changes(&map, vec![put("secret", "1")]);
    metered.commit(&batch).await.unwrap();
    assert!(warnings_of("slow calls").is_empty());
    after_a_second(&store, Method::Commit, metered.commit(&batch))
        .await
        .unwrap();
    store.set_rule(|_| Fault::Hang(Hang::new()));
    timeout(2 * SECOND, metered.load(&map, Wanted::All))
        .await
        .unwrap_err();
    let logged = warnings_of("slow calls");
    assert_eq!(logged.len(), 2, "{logged:?}");
    for part in ["commit", "took=1s", "\"ok\"", "\"main\""] {
        assert!(logged[0].contains(part), "{part}: {}", logged[0]);
    }
    for part in ["load", "took=2s", "cancelled"] {
        assert!(logged[1].contains(part), "{part}: {}", logged[1]);
    }
    assert!(logged.iter().all(|line| !line.contains("secret")));
}

#[tokio::test(start_paused = true)]
async fn the_figures_of_a_map_are_recorded_on_request() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let (store, metered) = metered();
    let quick =
        |map: persistify::PersistentMapBuilder<u32>| map.retry(impatient()).batch(1_000, HOUR);
    let map = open(metered.clone(), "m", quick).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.insert("b", 2);
    map.insert("c", 2);
    sleep(3 * SECOND).await;
    recorder.take();
    assert_eq!(recorder.take(), BTreeMap::new());
    map.record_metrics("main");
    let all = recorder.take();
    let one = |metric: &str| of_map(&all, metric, "").to_vec();
    assert_eq!(one("persistify_entries"), [3.0]);
    assert_eq!(one("persistify_pending_keys"), [2.0]);
    assert_eq!(one("persistify_oldest_pending_seconds"), [3.0]);
    assert_eq!(one("persistify_healthy"), [1.0]);
    assert_eq!(one("persistify_commits_total"), [1.0]);
    assert_eq!(one("persistify_changes_total"), [1.0]);
    assert_eq!(all.len(), 6, "{all:?}");

    store.down(ErrorKind::Unavailable);
    map.flush().await.unwrap_err();
    store.up();
    store.refuse(["b"]);
    recorder.take();
    map.record_metrics("main");
    let all = recorder.take();
    assert!(
        of_map(&all, "persistify_healthy", "").is_empty(),
        "0 if it is down"
    );
    assert_eq!(of_map(&all, "persistify_failed_attempts_total", ""), [1.0]);
    map.flush().await.unwrap_err();
    map.record_metrics("main");
    let all = recorder.take();
    assert_eq!(of_map(&all, "persistify_refused_keys", ""), [1.0]);
    assert_eq!(of_map(&all, "persistify_healthy", ""), [1.0]);
}

/// The counters of a map begin at 0 when it is opened, and a metric that was set to them stood
/// still until they had caught up.
#[tokio::test]
async fn counters_go_on_when_a_map_is_opened_again() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let (_, metered) = metered();
    let mut counted = Vec::new();
    for _ in 0..2 {
        let map = open::<u32>(metered.clone(), "m", as_it_is).await;
        for n in 0..3 {
            map.insert_and_save("a", n).await.unwrap();
            map.record_metrics("main");
            map.record_metrics("main");
            counted.extend_from_slice(of_map(&recorder.take(), "persistify_commits_total", ""));
        }
        map.close().await.unwrap();
    }
    assert_eq!(counted, [1.0; 6]);
}

#[tokio::test(start_paused = true)]
async fn a_caching_map_is_measured_too_and_no_key_is_a_label() {
    let recorder = TestRecorder::default();
    let _guard = recorder.install();
    let (_, metered) = metered();
    let map: CachingMap<String> = open_caching(metered.clone(), "m", as_it_is).await;
    map.insert_and_save("secret", "hidden".to_owned())
        .await
        .unwrap();
    map.record_metrics("main");
    settle().await;
    map.close().await.unwrap();
    let all = recorder.take();
    assert_eq!(of_map(&all, "persistify_entries", ""), [1.0]);
    let secret = |key: &String| key.contains("secret") || key.contains("hidden");
    assert!(!all.keys().any(secret), "{all:?}");
}

/// A recorder that is installed later than the first call is not found; without any, the layer
/// does nothing.
#[tokio::test]
async fn without_a_recorder_it_only_forwards() {
    let (_, metered) = metered();
    let map: PersistentMap<u32> = open(metered, "m", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.record_metrics("main");
    assert_eq!(map.get("a"), Some(1));
}
