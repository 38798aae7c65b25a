//! Values that cannot be merged: nothing is lost, and the map stays usable.

use std::sync::OnceLock;

use super::*;
use futures_util::poll;
use persistify::{Operation, UnreadableRecord};
use serde::{Deserialize, Serialize};

use crate::support::{map_name, open, steady, stored_in};

async fn write_text(store: &Store, key: &str, text: &str) {
    let map: PersistentMap<String> =
        open(store.clone(), "map", |map| steady(map).allow_unreadable()).await;
    map.insert_and_save(key, text.to_owned()).await.unwrap();
}

fn listed(map: &PersistentMap<u32>) -> Vec<String> {
    let keys = |listed: &UnreadableRecord| listed.record.key.to_string();
    map.unreadable().iter().map(keys).collect()
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_panics_costs_its_entry_and_nothing_else() {
    let store = store();
    let broken = Arc::new(AtomicU32::new(1));
    let breaking = broken.clone();
    let here = open_on(
        &store,
        OnConflict::merge(move |mine: u32, theirs| {
            assert!(breaking.load(SeqCst) == 0, "not today");
            mine + theirs
        }),
    )
    .await;
    let there = open_on(&store, OnConflict::LastWrite).await;
    there.insert_and_save("a", 1).await.unwrap();
    let (mut conflicts, mut failures) = (here.conflicts(), here.failures());
    let (a, b) = tokio::join!(here.insert_and_save("a", 20), here.insert_and_save("b", 2));
    let error = a.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.keys(), [Arc::<str>::from("a")]);
    let said = format!("{error:?}");
    assert!(said.contains("not today"), "{said}");
    b.unwrap();
    assert_eq!((here.get("a"), here.refused().len()), (Some(20), 1));
    assert_eq!(stored(&store).await, pairs([("a", 1), ("b", 2)]));
    assert_eq!(told(&mut conflicts), ended("a", Resolution::Refused));
    let failure = failures.try_recv().unwrap();
    assert_eq!(
        (failure.operation, failure.is_final),
        (Operation::Merge, true)
    );
    assert_eq!(here.flush().await.unwrap_err().kind(), ErrorKind::Refused);
    // The revision it was based on is kept: it is still a conflict.
    broken.store(0, SeqCst);
    assert_eq!(here.retry_refused(), 1);
    here.flush().await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 21), ("b", 2)]));
    assert_eq!(here.stats().conflicts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_calls_a_map_panics_with_a_message() {
    let store = store();
    let other = open_on(&crate::support::store(), OnConflict::LastWrite).await;
    let calling = other.clone();
    let here = open_on(
        &store,
        OnConflict::merge(move |mine, theirs| {
            calling.insert("a", theirs);
            mine
        }),
    )
    .await;
    let there = open_on(&store, OnConflict::LastWrite).await;
    there.insert_and_save("a", 1).await.unwrap();
    let error = here.insert_and_save("a", 2).await.unwrap_err();
    let said = format!("{error:?}");
    assert!(said.contains("inside a map's closure"), "{said}");
    assert_eq!((here.get("a"), other.get("a")), (Some(2), None));
    here.insert_and_save("b", 1).await.unwrap();
    other.insert_and_save("b", 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_value_of_another_writer_is_not_destroyed() {
    let store = store();
    let here = open_on(&store, sum()).await;
    here.extend([("a", 1), ("removed", 1)]);
    here.flush().await.unwrap();
    write_text(&store, "a", "one").await;
    write_text(&store, "removed", "two").await;
    let error = here.insert_and_save("a", 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(
        (here.get("a"), listed(&here)),
        (Some(2), vec!["a".to_owned()])
    );
    // A value wins over a removal, even an unreadable value.
    let lost = here.remove_and_save("removed").await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    assert_eq!(listed(&here), ["a", "removed"]);
    assert_eq!(stored(&store).await["a"], r#""one""#);
    assert_eq!(stored(&store).await["removed"], r#""two""#);
    // The retry sets the stored value aside and overwrites it.
    here.retry_refused();
    here.flush().await.unwrap();
    assert_eq!(stored(&store).await["a"], "2");
    let aside = stored_in(&store, &map_name().nested("unreadable").unwrap()).await;
    assert!(aside.values().any(|text| text == r#""one""#), "{aside:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_wins_keeps_what_does_not_decode() {
    let store = store();
    let here = open_on(&store, OnConflict::StoreWins).await;
    here.insert_and_save("a", 1).await.unwrap();
    write_text(&store, "a", "one").await;
    let lost = here.insert_and_save("a", 2).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    assert_eq!((here.get("a"), listed(&here)), (None, vec!["a".to_owned()]));
    assert_eq!(stored(&store).await["a"], r#""one""#);
    // By now the map knows the record, so overwriting it is no conflict.
    here.insert_and_save("a", 3).await.unwrap();
    assert_eq!(stored(&store).await["a"], "3");
    let aside = stored_in(&store, &map_name().nested("unreadable").unwrap()).await;
    assert!(aside.values().any(|text| text == r#""one""#), "{aside:?}");
}

/// A record that was unreadable when the map was opened is known to the map.
#[tokio::test(start_paused = true)]
async fn a_record_that_was_unreadable_at_open_is_no_conflict() {
    for policy in [OnConflict::StoreWins, sum()] {
        let store = store();
        write_text(&store, "a", "one").await;
        let map = open(store.clone(), "map", |map| {
            steady(map).allow_unreadable().conflicts(policy)
        })
        .await;
        map.insert_and_save("a", 1).await.unwrap();
        assert_eq!(stored(&store).await["a"], "1");
        assert_eq!(map.stats().conflicts, 0);
    }
}

/// A value that calls a map when it is dropped.
#[derive(Deserialize, Serialize)]
struct Asking(u32);

static ASKED: OnceLock<PersistentMap<u32>> = OnceLock::new();

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(map) = ASKED.get() {
            map.get("a");
        }
    }
}

/// A stored value that was of no use after a clear was dropped while its entry was locked. A
/// value that called a map in its `Drop` ended the background task.
#[tokio::test(start_paused = true)]
async fn an_unused_stored_value_is_dropped_without_a_lock() {
    let asked = open_on(&store(), OnConflict::LastWrite).await;
    assert!(ASKED.set(asked).is_ok());
    let store = store();
    let here = open::<Asking>(store.clone(), "map", |map| {
        steady(map).conflicts(OnConflict::StoreWins)
    })
    .await;
    write_as_another(store.inner(), vec![put("a", "1")]).await;
    let hang = store.hang_next();
    here.insert("a", Asking(2));
    let mut flush = Box::pin(here.flush());
    assert!(poll!(&mut flush).is_pending());
    hang.hangs().await;
    here.clear();
    hang.release();
    flush.await.unwrap();
    here.insert_and_save("a", Asking(3)).await.unwrap();
    assert_eq!(stored(&store).await, pairs([("a", 3)]));
}
