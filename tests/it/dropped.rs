//! Maps that are dropped from their store while they are open.

use persistify::{ErrorKind, Health, Memory, Provider, Rewind, testing::conformance};

use crate::support::{
    impatient, in_memory, map_name, open, open_numbers, pairs, settle, steady, store, stored,
};

/// The map keeps its entries in memory, but may not commit any of them; otherwise its next flush
/// would bring the dropped map back.
#[tokio::test(start_paused = true)]
async fn an_open_map_stops_and_begins_anew_once_it_is_told_to() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert_and_save("old", 1).await.unwrap();
    store.drop_map(&map_name()).await.unwrap();
    let failed = map.insert_and_save("new", 2).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Rewound, "{failed:?}");
    assert!(failed.to_string().contains("dropped"), "{failed}");
    assert!(matches!(&*map.health().borrow(), Health::Rewound { .. }));
    assert!(stored(&store).await.is_empty());
    assert!(store.maps().await.unwrap().is_empty());

    map.resolve_rewind(Rewind::TakeStore).await.unwrap();
    assert_eq!(stored(&store).await, pairs([("new", 2)]));
    assert_eq!(in_memory(&map), pairs([("new", 2)]));
    map.insert_and_save("more", 3).await.unwrap();
    map.close().await.unwrap();
}

/// A commit hung and was given up, the map was dropped, and then the commit arrived. It must not
/// bring the map back.
#[tokio::test(start_paused = true)]
async fn a_commit_that_hung_and_lands_after_the_drop_is_refused() {
    let store = store();
    let limit = std::time::Duration::from_secs(1);
    let map = open::<u32>(store.clone(), "map", |map| {
        steady(map).commit_timeout(limit).retry(impatient())
    })
    .await;
    let hang = store.hang_next();
    map.insert("late", 1);
    hang.hangs().await;
    store.drop_map(&map_name()).await.unwrap();
    let landed = hang.land().await;
    let kinds: Vec<_> = landed
        .iter()
        .map(|r| r.as_ref().unwrap_err().kind())
        .collect();
    assert_eq!(kinds, [ErrorKind::Rewound]);
    hang.release();
    settle().await;
    assert!(stored(&store).await.is_empty());
    assert!(store.maps().await.unwrap().is_empty());
}

/// The revisions of a map that is opened after the drop are above those from before.
#[tokio::test(start_paused = true)]
async fn a_map_that_is_opened_after_the_drop_is_empty_and_writes() {
    let store = store();
    let old = open_numbers(&store).await;
    old.insert_and_save("key", 1).await.unwrap();
    let before = old.get_with_revision("key").unwrap().1;
    store.drop_map(&map_name()).await.unwrap();
    let new = open_numbers(&store).await;
    assert!(new.is_empty());
    new.insert_and_save("key", 2).await.unwrap();
    let after = new.get_with_revision("key").unwrap().1;
    assert!(after > before, "{after} {before}");
    assert_eq!(
        old.insert_and_save("key", 3).await.unwrap_err().kind(),
        ErrorKind::Rewound
    );
    assert_eq!(stored(&store).await, pairs([("key", 2)]));
}

#[tokio::test]
async fn memory_leaves_no_part_of_the_contract_of_drops_out() {
    let memory = Memory::new();
    let report = conformance(async || Ok(memory.clone())).await;
    let outcomes = report.outcomes().iter();
    let mut left_out = outcomes.flat_map(|outcome| outcome.left_out());
    assert!(!left_out.any(|what| what.contains("dropping")), "{report}");
}
