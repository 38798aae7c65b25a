//! Shards that go back in time.

use persistify::{ErrorKind, Memory, PersistentMap, Provider, Rewind, Wanted};

use super::{NAMES, Three, key_on};
use crate::support::{as_it_is, impatient, map_name, open, steady};

async fn opened(three: &Three) -> PersistentMap<u32> {
    open(three.open(), "map", |map| steady(map).retry(impatient())).await
}

/// A map claims that its last batch was acknowledged. A shard that had no part in it has lost
/// nothing.
#[tokio::test(start_paused = true)]
async fn a_shard_is_asked_only_for_the_batches_that_it_had_a_part_in() {
    let three = Three::new();
    let map = opened(&three).await;
    let store = three.open();
    for shard in [0, 0, 1, 0, 2, 1, 1, 0, 2] {
        let key = key_on(&store, NAMES[shard], 0);
        map.insert_and_save(&key, 1).await.unwrap();
    }
    assert!(map.health().borrow().is_healthy());
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_has_lost_commits_stops_the_map_until_that_is_resolved() {
    for how in [Rewind::SaveAgain, Rewind::TakeStore] {
        let three = Three::new();
        let (map, store) = (opened(&three).await, three.open());
        let keys = NAMES.map(|shard| key_on(&store, shard, 0));
        for key in &keys {
            map.insert_and_save(key, 1).await.unwrap();
        }
        let backup = three.0[1].inner().backup();
        map.insert_and_save(&keys[1], 2).await.unwrap();
        map.insert_and_save(&keys[0], 2).await.unwrap();
        three.0[1].inner().restore(&backup);
        // The other shards have lost nothing.
        map.insert_and_save(&keys[2], 2).await.unwrap();
        let noticed = map
            .insert_and_save(key_on(&store, "b", 1), 3)
            .await
            .unwrap_err();
        assert_eq!(noticed.kind(), ErrorKind::Rewound, "{noticed}");
        assert!(noticed.to_string().contains("\"b\""));
        let states = noticed.rewound().unwrap();
        assert!(states.expected.is_some() && states.expected != states.found);
        map.resolve_rewind(how).await.unwrap();
        for key in &keys {
            map.insert_and_save(format!("{key} more"), 4).await.unwrap();
        }
        map.close().await.unwrap();
        let map = opened(&three).await;
        let kept = if how == Rewind::SaveAgain { 2 } else { 1 };
        assert_eq!(
            keys.each_ref().map(|key| map.get(key)),
            [Some(2), Some(kept), Some(2)]
        );
    }
}

/// One process notices the loss. Another one, to which the shard had acknowledged nothing, has
/// the lost entries in memory.
#[tokio::test(start_paused = true)]
async fn a_loss_that_another_process_noticed_stops_the_map() {
    let three = Three::new();
    let (one, other, store) = (opened(&three).await, opened(&three).await, three.open());
    let backup = three.0[0].inner().backup();
    one.insert_and_save(key_on(&store, "a", 0), 1)
        .await
        .unwrap();
    three.0[0].inner().restore(&backup);
    let noticed = one
        .insert_and_save(key_on(&store, "a", 0), 2)
        .await
        .unwrap_err();
    assert_eq!(noticed.kind(), ErrorKind::Rewound);
    other
        .insert_and_save(key_on(&store, "b", 0), 1)
        .await
        .unwrap();
    let told = other
        .insert_and_save(key_on(&store, "a", 1), 1)
        .await
        .unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Rewound);
    let reload = other.reload().await.unwrap_err();
    assert_eq!(reload.kind(), ErrorKind::Rewound);
}

/// Another shard had applied its part when one noticed its loss.
#[tokio::test(start_paused = true)]
async fn a_loss_in_the_middle_of_a_batch_is_resolved_with_the_rest_of_it() {
    let three = Three::new();
    let (map, store) = (opened(&three).await, three.open());
    let keys = NAMES.map(|shard| key_on(&store, shard, 0));
    let backup = three.0[2].inner().backup();
    for key in &keys {
        map.insert(key, 1);
    }
    map.flush().await.unwrap();
    three.0[2].inner().restore(&backup);
    for key in &keys {
        map.insert(key, 2);
    }
    let noticed = map.flush().await.unwrap_err();
    assert_eq!(noticed.kind(), ErrorKind::Rewound);
    map.resolve_rewind(Rewind::SaveAgain).await.unwrap();
    map.close().await.unwrap();
    let map = opened(&three).await;
    assert_eq!(keys.each_ref().map(|key| map.get(key)), [Some(2); 3]);
}

#[tokio::test]
async fn the_incarnation_is_that_of_all_shards_and_stays() {
    let three = Three::new();
    let found = three.open().ping().await.unwrap();
    assert!(found.is_some());
    let store = three.open();
    let load = store.load(&map_name(), Wanted::All).await.unwrap();
    assert_eq!(load.incarnation, found);
    let map = open::<u32>(three.open(), "map", as_it_is).await;
    map.insert_and_save("key", 1).await.unwrap();
    assert_eq!(three.open().ping().await.unwrap(), found);
    let one = persistify::Sharded::new([("a", Memory::new())]).unwrap();
    assert_ne!(one.ping().await.unwrap(), found);
}
