//! Stored records that do not decode: reported, and never destroyed.

use std::collections::BTreeMap;

use persistify::{
    ErrorKind, MapName, Operation, PersistentMap,
    testing::{Fault, Method},
};

use crate::support::{
    HOUR, SECOND, Store, builder, impatient, keys, map_name, open, open_numbers, settle, steady,
    store, stored, stored_in,
};

fn aside() -> MapName {
    map_name().nested("unreadable").unwrap()
}

/// The set-aside JSON texts, by key.
async fn set_aside(store: &Store) -> Vec<(String, String)> {
    let stored = stored_in(store, &aside()).await;
    // For the program that writes texts, the numbers are unreadable.
    let pairs = stored.into_iter().filter(|(_, text)| text.starts_with('"'));
    let key = |key: String| key.split_once(':').unwrap().1.to_owned();
    pairs.map(|(k, text)| (key(k), text)).collect()
}

/// Writes texts into the map, as another program does.
async fn write_texts(store: &Store, texts: &[(&str, &str)]) {
    let map: PersistentMap<String> =
        open(store.clone(), "map", |map| steady(map).allow_unreadable()).await;
    map.extend(texts.iter().map(|(key, text)| (*key, (*text).to_owned())));
    map.close().await.unwrap();
}

async fn open_allowing(store: &Store) -> PersistentMap<u32> {
    let map = builder(store).batch(1_000, HOUR).retry(impatient());
    map.allow_unreadable().open().await.unwrap()
}

fn text(text: &str) -> String {
    format!("{text:?}")
}

#[tokio::test(start_paused = true)]
async fn open_fails_and_names_the_map_and_the_key() {
    let store = store();
    write_texts(&store, &[("a", "one")]).await;
    let before = stored(&store).await;
    let error = builder::<u32>(&store).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.map(), Some("map"));
    assert_eq!(
        error.keys().iter().map(|key| &**key).collect::<Vec<_>>(),
        ["a"]
    );
    let said = error.to_string();
    assert!(
        said.contains("\"map\"") && said.contains("\"a\"") && said.contains("u32"),
        "{said}"
    );
    for remedy in ["migrate", "allow_unreadable"] {
        assert!(said.contains(remedy), "{said}");
    }
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(stored(&store).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_map_that_allows_unreadable_records_opens_and_lists_them() {
    let store = store();
    open_numbers(&store)
        .await
        .insert_and_save("good", 1)
        .await
        .unwrap();
    write_texts(&store, &[("a", "one"), ("b", "two")]).await;
    let map = open_allowing(&store).await;
    assert_eq!(
        (map.len(), map.get("a"), map.get("good")),
        (1, None, Some(1))
    );
    let listed = map.unreadable();
    let listed: Vec<_> = listed
        .iter()
        .map(|l| (&*l.record.key, l.set_aside))
        .collect();
    assert_eq!(listed, [("a", false), ("b", false)]);
    assert_eq!(map.stats().unreadable, 2);
    assert_eq!(map.unreadable()[0].error.kind(), ErrorKind::Corrupt);
    let bytes = map.unreadable()[0].record.value.clone().unwrap().bytes;
    assert_eq!(bytes, text("one"));
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_record_keeps_its_bytes_through_everything() {
    let store = store();
    write_texts(&store, &[("a", "one"), ("b", "two"), ("c", "three")]).await;
    let map = open_allowing(&store).await;

    // Removing an absent key changes nothing.
    assert_eq!(map.remove("a"), None);
    map.insert("a", 1);
    map.remove("a");
    map.retain(|_, _| false);
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await["a"], text("one"));
    assert!(set_aside(&store).await.is_empty());

    map.insert("a", 1);
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await["a"], "1");
    assert_eq!(set_aside(&store).await, [("a".into(), text("one"))]);
    let listed: Vec<_> = { map.unreadable() }.iter().map(|l| l.set_aside).collect();
    assert_eq!(listed, [true, false, false]);
    map.remove("a");
    map.flush().await.unwrap();
    map.insert_and_save("b", 2).await.unwrap();

    map.clear();
    map.close().await.unwrap();
    assert!(stored(&store).await.is_empty());
    let all: BTreeMap<_, _> = set_aside(&store).await.into_iter().collect();
    let expected = [("a", "one"), ("b", "two"), ("c", "three")];
    assert_eq!(all, expected.map(|(k, t)| (k.to_owned(), text(t))).into());

    let map = open_numbers(&store).await;
    map.insert("a", 1);
    map.close().await.unwrap();
    assert_eq!(set_aside(&store).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_record_of_each_generation_of_a_key_survives() {
    let store = store();
    for (generation, value) in ["one", "two", "three"].into_iter().enumerate() {
        write_texts(&store, &[("a", value)]).await;
        let map = open_allowing(&store).await;
        map.insert("a", 1);
        map.close().await.unwrap();
        assert_eq!(set_aside(&store).await.len(), generation + 1);
    }
    let mut texts: Vec<_> = set_aside(&store)
        .await
        .into_iter()
        .map(|(_, t)| t)
        .collect();
    texts.sort();
    assert_eq!(texts, ["one", "three", "two"].map(text));
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_comes_with_a_reload_survives_too() {
    let store = store();
    write_texts(&store, &[("a", "one")]).await;
    let map = open_allowing(&store).await;
    map.insert_and_save("a", 1).await.unwrap();
    write_texts(&store, &[("a", "two")]).await;
    map.reload().await.unwrap();
    assert_eq!(map.get("a"), None);
    assert!(!map.unreadable()[0].set_aside);
    map.insert_and_save("a", 2).await.unwrap();
    assert_eq!(set_aside(&store).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_record_is_moved_aside_before_its_key_is_overwritten() {
    for clear in [false, true] {
        let store = store();
        write_texts(&store, &[("a", "one")]).await;
        let begun = store.batches().len();
        let map = open_allowing(&store).await;
        if clear {
            map.clear();
        } else {
            map.insert("a", 1);
        }
        // The process ends between the two commits.
        store.fail_nth(2, Fault::Before(ErrorKind::Unavailable));
        map.flush().await.unwrap_err();
        drop(map);
        settle().await;
        let names = store.batches()[begun..]
            .iter()
            .map(|b| b.maps[0].map.clone())
            .collect::<Vec<_>>();
        assert_eq!(names, [aside(), map_name()]);
        assert_eq!(stored(&store).await["a"], text("one"));
        assert_eq!(set_aside(&store).await, [("a".into(), text("one"))]);

        let map = open_allowing(&store).await;
        assert_eq!(map.unreadable().len(), 1);
        map.insert_and_save("a", 1).await.unwrap();
        assert_eq!(set_aside(&store).await, [("a".into(), text("one"))]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_record_that_cannot_be_moved_aside_is_not_overwritten() {
    for (clear, fault) in [
        (false, Fault::Before(ErrorKind::Unavailable)),
        (true, Fault::Before(ErrorKind::Unavailable)),
        (false, Fault::Lost(ErrorKind::Unavailable)),
        (true, Fault::Lost(ErrorKind::Unusable)),
        (false, Fault::After(ErrorKind::Unavailable)),
        (false, Fault::Before(ErrorKind::Refused)),
        (true, Fault::Before(ErrorKind::Refused)),
    ] {
        let store = store();
        write_texts(&store, &[("a", "one")]).await;
        let begun = store.calls(Method::Commit);
        let map = open_allowing(&store).await;
        let mut events = map.failures();
        let rule_fault = fault.clone();
        store.set_rule(move |call| match &call.batch {
            Some(batch) if batch.maps[0].map == aside() => rule_fault.clone(),
            _ => Fault::None,
        });
        if clear {
            map.clear();
        }
        map.insert("a", 1);
        map.flush().await.unwrap_err();
        assert_eq!(events.try_recv().unwrap().operation, Operation::SetAside);
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(stored(&store).await["a"], text("one"), "{clear} {fault:?}");
        let ours = { store.batches() }.split_off(usize::try_from(begun).unwrap());
        assert!(ours.iter().all(|batch| batch.maps[0].map == aside()));
        store.behave();
        map.retry_refused();
        map.flush().await.unwrap();
        assert_eq!(stored(&store).await["a"], "1");
        assert_eq!(set_aside(&store).await, [("a".into(), text("one"))]);
    }
}

/// A clear that had to wait until an unreadable record was set aside was taken for a refused
/// change, and one key after the other was reported as refused.
#[tokio::test(start_paused = true)]
async fn a_clear_that_cannot_set_aside_is_blamed_on_no_key() {
    let store = store();
    write_texts(&store, &[("a", "one")]).await;
    let map = open_allowing(&store).await;
    store.set_rule(|call| match &call.batch {
        Some(batch) if batch.maps[0].map == aside() => Fault::Before(ErrorKind::Refused),
        _ => Fault::None,
    });
    map.clear();
    map.extend([("b", 2), ("c", 3)]);
    map.flush().await.unwrap_err();
    assert!(map.refused().is_empty());
    assert_eq!(map.pending(), 3);
    assert_eq!(map.health().borrow().kind(), Some(ErrorKind::Refused));
    store.behave();
    map.flush().await.unwrap();
    assert_eq!(stored(&store).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn other_keys_do_not_wait_for_one_that_cannot_be_set_aside() {
    let store = store();
    write_texts(&store, &[("a", "one")]).await;
    let map = open_allowing(&store).await;
    store.set_rule(|call| match &call.batch {
        Some(batch) if batch.maps[0].map == aside() => Fault::Before(ErrorKind::Refused),
        _ => Fault::None,
    });
    map.extend([("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
    let error = map.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let refused: Vec<_> = { map.refused() }
        .iter()
        .map(|r| r.key.to_string())
        .collect();
    assert_eq!(refused, ["a"]);
    assert_eq!(stored(&store).await.len(), 4);
    assert_eq!(stored(&store).await["a"], text("one"));
    assert!(
        store
            .batches()
            .iter()
            .rev()
            .take(4)
            .any(|b| keys(b).contains(&"d".into()))
    );
}

/// A key that another program had repaired stayed on the list forever, and its old value was
/// set aside again and again.
#[tokio::test(start_paused = true)]
async fn a_reload_takes_mended_and_missing_records_off_the_list() {
    let store = store();
    write_texts(
        &store,
        &[("mended", "one"), ("removed", "two"), ("still", "three")],
    )
    .await;
    let map = open_allowing(&store).await;
    assert_eq!(map.unreadable().len(), 3);
    let mending = open_allowing(&store).await;
    mending.insert("mended", 1);
    mending.insert("removed", 1);
    mending.flush().await.unwrap();
    mending.remove_and_save("removed").await.unwrap();
    store.fail_next_of(Method::Load, 1, Fault::Before(ErrorKind::Unavailable));
    map.reload().await.unwrap_err();
    assert_eq!(map.unreadable().len(), 3, "what was not looked at stays");
    map.reload().await.unwrap();
    let listed: Vec<_> = map
        .unreadable()
        .iter()
        .map(|l| l.record.key.clone())
        .collect();
    assert_eq!(listed, ["still".into()]);
    assert_eq!((map.get("mended"), map.stats().unreadable), (Some(1), 1));
}
