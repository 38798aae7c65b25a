//! The copy on the standby: what reaches it, and how.

use std::time::{Duration, SystemTime};

use persistify::{
    Change, Failover, MapBatch, Memory, Payload, Provider, ProviderExt, Revision, Wanted,
    testing::Method,
};

use super::{assert_copied, mirror, pair, stores::Modest};
use crate::support::{
    Pen, SECOND, map_name, name, put,
    records::{all, text_of},
    store,
};

fn later(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000 + seconds)
}

/// Every kind of change, one after the other, copied after each.
async fn follows(primary: impl Provider + Clone, standby: impl Provider + Clone) {
    let layer = primary.clone().layer(Failover::to(standby.clone()));
    let (map, mut pen) = (map_name(), Pen::new());
    layer.load(&map, Wanted::All).await.unwrap();
    let payload = |text: &'static str| Payload::json(text).with_schema(2);
    let steps = [
        vec![put("a", "1"), put("b", "2"), put("c", "3"), put("d", "4")],
        vec![
            Change::put("a", payload("5"), Some(later(1))),
            Change::delete("b"),
        ],
        vec![
            Change::touch("a", Some(later(2))),
            Change::touch("c", Some(later(3))),
        ],
        vec![
            Change::touch("a", None),
            put("b", "6"),
            Change::delete("none"),
        ],
    ];
    for changes in steps {
        layer.commit(&pen.changes(&map, changes)).await.unwrap();
        layer.catch_up().await.unwrap();
        assert_copied(&primary, &standby, &map).await;
    }
    assert_eq!(
        all(&standby, &map).await[0].value.as_ref().unwrap().schema,
        2
    );
    let clear = MapBatch::new(map.clone(), vec![put("e", "7")]).clearing(true);
    layer.commit(&pen.batch(vec![clear])).await.unwrap();
    layer.catch_up().await.unwrap();
    assert_copied(&primary, &standby, &map).await;
    assert_eq!(all(&standby, &map).await.len(), 1);
    layer.drop_map(&map).await.unwrap();
    layer.catch_up().await.unwrap();
    assert!(all(&standby, &map).await.is_empty());
    layer
        .commit(&pen.changes(&map, vec![put("f", "8")]))
        .await
        .unwrap();
    layer.catch_up().await.unwrap();
    assert_copied(&primary, &standby, &map).await;
    layer.close().await.unwrap();
}

#[tokio::test]
async fn every_change_reaches_a_standby_in_memory() {
    follows(Memory::new(), Memory::new()).await;
}

#[tokio::test]
async fn every_change_of_a_primary_without_tombstones_reaches_a_modest_standby() {
    follows(Modest(Memory::new()), Modest(Memory::new())).await;
}

#[cfg(all(feature = "sqlite", feature = "json"))]
#[tokio::test]
async fn every_change_reaches_other_kinds_of_standbys() {
    let folder = tempfile::tempdir().unwrap();
    let json = async |name| {
        persistify::JsonFile::open(folder.path().join(name))
            .await
            .unwrap()
    };
    let sqlite = async |name| {
        persistify::Sqlite::open(folder.path().join(name))
            .await
            .unwrap()
    };
    follows(sqlite("a.db").await, json("a").await).await;
    follows(json("b").await, sqlite("b.db").await).await;
}

/// Story: the copy of a dropped map was an empty map that was still listed.
#[tokio::test(start_paused = true)]
async fn a_dropped_map_is_dropped_on_the_standby() {
    let (_, standby, layer) = pair();
    let (one, two, mut pen) = (name("one"), name("two"), Pen::new());
    for map in [&one, &two] {
        pen.put(&layer, map, "a", "1").await;
    }
    layer.catch_up().await.unwrap();
    layer.drop_map(&one).await.unwrap();
    layer
        .commit(&pen.batch(vec![MapBatch::new(two.clone(), vec![]).clearing(true)]))
        .await
        .unwrap();
    layer.catch_up().await.unwrap();
    let listed = standby.maps().await.unwrap();
    assert!(
        !listed.contains(&one) && listed.contains(&two),
        "{listed:?}"
    );
}

/// No call of a test: the task does it by itself.
#[tokio::test(start_paused = true)]
async fn a_commit_is_copied_by_itself_at_once_and_one_of_another_process_at_the_interval() {
    let (primary, standby, layer) = pair();
    let (map, mut pen) = (map_name(), Pen::new());
    pen.put(&layer, &map, "a", "1").await;
    assert_eq!(layer.lag().maps, std::slice::from_ref(&map));
    tokio::time::sleep(SECOND).await;
    assert_copied(primary.inner(), standby.inner(), &map).await;
    let lag = layer.lag();
    assert!(
        lag.maps.is_empty() && lag.oldest.is_none() && lag.error.is_none(),
        "{lag:?}"
    );
    pen.put(primary.inner(), &map, "a", "2").await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_copied(primary.inner(), standby.inner(), &map).await;
    // A map that is only read is copied too, and one that was released is not any more.
    pen.put(primary.inner(), &name("read"), "a", "1").await;
    layer.load(&name("read"), Wanted::All).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_copied(primary.inner(), standby.inner(), &name("read")).await;
    layer.release(&map).await.unwrap();
    let loads = primary.calls(Method::Load);
    layer.release(&name("read")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(primary.calls(Method::Load), loads + 1);
}

#[tokio::test(start_paused = true)]
async fn a_released_map_has_its_last_changes_on_the_standby() {
    let (primary, standby, layer) = pair();
    let (map, mut pen) = (map_name(), Pen::new());
    pen.put(&layer, &map, "a", "1").await;
    layer.release(&map).await.unwrap();
    assert_copied(primary.inner(), standby.inner(), &map).await;
    assert_eq!(standby.calls(Method::Release), 1);
    pen.put(&layer, &map, "a", "2").await;
    layer.close().await.unwrap();
    // The clone was opened again.
    let text = text_of(&standby.inner().backup(), &map, "a").await;
    assert_eq!(text.as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_by_the_changes_and_a_long_gap_by_a_comparison() {
    let (primary, standby) = (store(), store());
    let (map, mut pen) = (map_name(), Pen::new());
    let keys: Vec<_> = (0..2_500).map(|n| put(&format!("key {n}"), "1")).collect();
    pen.write(&primary, &map, keys).await.unwrap();
    let layer = mirror(&primary, &standby);
    layer.load(&map, Wanted::All).await.unwrap();
    layer.catch_up().await.unwrap();
    assert_copied(primary.inner(), standby.inner(), &map).await;
    drop(layer);
    // Commits of another process, while this one is not running.
    let changes = vec![Change::delete("key 7"), put("key 8", "2"), put("new", "3")];
    pen.write(primary.inner(), &map, changes.clone())
        .await
        .unwrap();
    let layer = mirror(&primary, &standby);
    let loads = primary.calls(Method::Load);
    layer.load(&map, Wanted::All).await.unwrap();
    layer.catch_up().await.unwrap();
    assert_copied(primary.inner(), standby.inner(), &map).await;
    assert_eq!(
        primary.calls(Method::Load),
        loads + 2,
        "one load of changes"
    );
    drop(layer);
    // The tombstones of the next gap are pruned.
    let primary = crate::support::Store::new(primary.inner().clone().keep_tombstones(SECOND));
    pen.write(primary.inner(), &map, vec![Change::delete("key 9")])
        .await
        .unwrap();
    pen.at += Duration::from_secs(100);
    pen.write(primary.inner(), &map, vec![put("key 10", "4")])
        .await
        .unwrap();
    let layer = mirror(&primary, &standby);
    let written = standby.calls(Method::Commit);
    layer.load(&map, Wanted::All).await.unwrap();
    layer.catch_up().await.unwrap();
    assert_copied(primary.inner(), standby.inner(), &map).await;
    let batches = standby
        .batches()
        .split_off(usize::try_from(written).unwrap());
    let changes = batches.iter().flat_map(|batch| batch.maps.iter());
    let changes: usize = changes
        .filter(|part| part.map == map)
        .map(|part| part.changes.len())
        .sum();
    assert_eq!(changes, 2, "only the differences are written");
}

/// More changes than one load brings: the copy takes several steps.
#[tokio::test(start_paused = true)]
async fn many_changes_are_copied_in_steps() {
    let (primary, standby, layer) = pair();
    let (map, mut pen) = (map_name(), Pen::new());
    layer.load(&map, Wanted::All).await.unwrap();
    layer.catch_up().await.unwrap();
    for from in [0, 700, 1_400, 2_100] {
        let changes = (from..from + 900).map(|n| put(&format!("key {n}"), "1"));
        pen.write(&layer, &map, changes.collect()).await.unwrap();
    }
    layer.catch_up().await.unwrap();
    assert_copied(primary.inner(), standby.inner(), &map).await;
    assert_eq!(all(standby.inner(), &map).await.len(), 3_000);
}

/// Two processes keep up one standby. The slower one must not bring back older states.
#[tokio::test(start_paused = true)]
async fn two_processes_share_a_standby() {
    let (primary, standby) = (store(), store());
    let layers = [mirror(&primary, &standby), mirror(&primary, &standby)];
    let (map, mut pen) = (map_name(), Pen::new());
    for n in 0..40_usize {
        let layer = &layers[n % 3 % 2];
        let changes = vec![
            put(&format!("key {}", n % 7), &n.to_string()),
            Change::delete(format!("key {}", n % 5)),
        ];
        let keys = changes[0].key == changes[1].key;
        let changes = changes.into_iter().take(if keys { 1 } else { 2 });
        pen.write(layer, &map, changes.collect()).await.unwrap();
        let (a, b) = tokio::join!(layers[0].catch_up(), layers[1].catch_up());
        a.and(b).unwrap();
        assert_copied(primary.inner(), standby.inner(), &map).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_lost_commits_and_a_standby_that_was_replaced_are_noticed() {
    let (primary, standby, layer) = pair();
    let (map, mut pen) = (map_name(), Pen::new());
    pen.put(&layer, &map, "a", "1").await;
    let backup = primary.inner().backup();
    pen.put(&layer, &map, "b", "2").await;
    layer.catch_up().await.unwrap();
    primary.inner().restore(&backup);
    layer.catch_up().await.unwrap();
    assert_copied(primary.inner(), standby.inner(), &map).await;
    assert_eq!(all(standby.inner(), &map).await.len(), 1);
    primary.inner().restore(&Memory::new());
    pen.put(&layer, &map, "c", "3").await;
    layer.catch_up().await.unwrap();
    assert_copied(primary.inner(), standby.inner(), &map).await;
    standby.inner().restore(&Memory::new());
    pen.put(&layer, &map, "d", "4").await;
    layer.catch_up().await.unwrap();
    assert_copied(primary.inner(), standby.inner(), &map).await;
    assert_eq!(all(standby.inner(), &map).await.len(), 2);
}

/// If a person makes the standby the primary, revisions go on growing.
#[tokio::test(start_paused = true)]
async fn the_revisions_of_the_copy_exceed_those_of_the_original() {
    let (_, standby, layer) = pair();
    let (map, mut pen) = (map_name(), Pen::new());
    let id = persistify::BatchId::new(pen.id, 1);
    let far = Revision::new(u64::MAX / 4);
    let part = MapBatch::new(map.clone(), vec![put("a", "1")]);
    let batch = persistify::Batch::new(id, far, pen.at, vec![part]);
    let original = layer.commit(&batch).await.unwrap().revision;
    layer.catch_up().await.unwrap();
    let copy = pen.put(standby.inner(), &map, "b", "2").await;
    assert!(Some(copy) > original);
}
