//! Other maps and processes of a store that has gone back in time.

use super::*;

/// The older copy has everything that was acknowledged to this map, but not the entries it has
/// loaded from others.
#[tokio::test(start_paused = true)]
async fn a_map_that_has_lost_nothing_learns_of_it_from_the_one_that_has() {
    let store = store();
    let (loser, other) = (open_numbers(&store).await, open_numbers(&store).await);
    other.insert_and_save("theirs", 1).await.unwrap();
    rewound(&store, &loser).await;
    assert_eq!(
        kind(loser.insert_and_save("x", 1).await),
        ErrorKind::Rewound
    );
    let found = states(&loser).found;
    assert_eq!(
        kind(other.insert_and_save("x", 2).await),
        ErrorKind::Rewound
    );
    let theirs = states(&other);
    assert_eq!(theirs.found, found, "there is one new incarnation");
    assert_eq!((theirs.acknowledged, theirs.remembered), (Some(1), Some(1)));
    loser.resolve_rewind(Rewind::SaveAgain).await.unwrap();
    other.resolve_rewind(Rewind::TakeStore).await.unwrap();
    let all = stored(&store).await;
    assert_eq!(all.get("x").map(String::as_str), Some("2"));
    assert_eq!(in_memory(&other), all);
    loser.reload().await.unwrap();
    assert_eq!(in_memory(&loser), all);
}

#[tokio::test(start_paused = true)]
async fn maps_that_notice_at_the_same_time_agree_on_one_incarnation() {
    let store = store();
    let mut maps = Vec::new();
    for _ in 0..8 {
        let map = open_numbers(&store).await;
        map.insert_and_save("k", 1).await.unwrap();
        maps.push(map);
    }
    store.inner().restore(&Memory::new());
    let saves = maps.iter().map(|map| map.insert_and_save("k", 2));
    for saved in futures_util::future::join_all(saves).await {
        assert_eq!(kind(saved), ErrorKind::Rewound);
    }
    let found = states(&maps[0]).found;
    assert!(maps.iter().all(|map| states(map).found == found));
}

#[tokio::test(start_paused = true)]
async fn a_reload_brings_nothing_of_a_store_that_went_back() {
    let store = store();
    let (map, other) = (open_numbers(&store).await, open_numbers(&store).await);
    other.insert_and_save("theirs", 1).await.unwrap();
    rewound(&store, &other).await;
    map.reload().await.unwrap();
    // No map has noticed the rewind yet, so this is the content of the store.
    assert_eq!(in_memory(&map).len(), 2);
    assert_eq!(
        kind(other.insert_and_save("x", 1).await),
        ErrorKind::Rewound
    );
    // The contents of the new incarnation are not loaded.
    other.resolve_rewind(Rewind::TakeStore).await.unwrap();
    other.clear_and_save().await.unwrap();
    assert_eq!(kind(map.reload().await), ErrorKind::Rewound);
    assert_eq!(in_memory(&map).len(), 2);
    states(&map);
    map.resolve_rewind(Rewind::TakeStore).await.unwrap();
    assert!(map.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_back_twice_is_noticed_twice() {
    let store = store();
    let map = open_numbers(&store).await;
    let before = store.inner().backup();
    rewound(&store, &map).await;
    assert_eq!(kind(map.flush_after("x").await), ErrorKind::Rewound);
    let first = states(&map);
    map.resolve_rewind(Rewind::SaveAgain).await.unwrap();
    map.insert_and_save("y", 1).await.unwrap();
    store.inner().restore(&before);
    assert_eq!(kind(map.flush_after("z").await), ErrorKind::Rewound);
    let second = states(&map);
    assert_eq!(second.expected, first.found);
    map.resolve_rewind(Rewind::SaveAgain).await.unwrap();
    assert_eq!(stored(&store).await, in_memory(&map));
    assert_eq!(map.len(), 5);
}

trait FlushAfter {
    async fn flush_after(&self, key: &str) -> persistify::Result<()>;
}

impl FlushAfter for PersistentMap<u32> {
    async fn flush_after(&self, key: &str) -> persistify::Result<()> {
        self.insert(key, 7);
        self.flush().await
    }
}
