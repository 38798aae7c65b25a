//! The errors of maps with unreadable records: they say how to open the map.

use std::collections::BTreeMap;

use persistify::{ErrorKind, PersistentMap};

use crate::support::{
    builder, map_name, open, open_numbers, put, steady, store, stored_in, write_as_another,
};

type Points = BTreeMap<String, Vec<u8>>;

/// One unreadable record kept a map of a million entries from opening, and the error named only the
/// first such record: finding all of them took one open per record.
#[tokio::test(start_paused = true)]
async fn open_tells_how_many_records_it_cannot_read_and_how_to_go_on() {
    let store = store();
    let map = open_numbers(&store).await;
    map.extend((0..97).map(|n| (format!("n{n}"), n)));
    map.close().await.unwrap();
    let bad = |n: usize| put(&format!("bad{n}"), "{\"a\":[1,\"x\"]}");
    write_as_another(&store, (0..7).map(bad).collect()).await;
    let error = builder::<u32>(&store).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let said = error.to_string();
    for part in [
        "7 of 104",
        "`u32`",
        "allow_unreadable",
        "migrate",
        "7 keys: \"bad0\", \"bad1\"",
    ] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert_eq!(error.keys().len(), 7);
    let map = open::<u32>(store.clone(), "map", |map| steady(map).allow_unreadable()).await;
    assert_eq!((map.len(), map.unreadable().len()), (97, 7));
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_record_names_the_place() {
    let store = store();
    write_as_another(&store, vec![put("a", r#"{"x":[1,2,"three"]}"#)]).await;
    let error = builder::<Points>(&store).open().await.unwrap_err();
    let debug = format!("{error:?}");
    assert!(debug.contains("(at `.x[2]`)"), "{debug}");
    let map: PersistentMap<Points> =
        open(store.clone(), "map", |map| steady(map).allow_unreadable()).await;
    let listed = map.unreadable()[0].error.to_string();
    assert!(listed.contains("(at `.x[2]`)"), "{listed}");
}

/// A reload stopped at an unreadable record, and the next write to its key destroyed the record.
#[tokio::test(start_paused = true)]
async fn a_reload_takes_in_what_it_can_read_before_it_errs() {
    let store = store();
    let map = open_numbers(&store).await;
    map.insert("bad", 1);
    map.insert("gone", 1);
    map.flush().await.unwrap();
    write_as_another(
        &store,
        vec![
            put("bad", "\"x\""),
            put("new", "2"),
            persistify::Change::delete("gone"),
        ],
    )
    .await;
    let error = map.reload().await.unwrap_err();
    assert_eq!((error.kind(), error.keys().len()), (ErrorKind::Corrupt, 1));
    assert_eq!(
        (map.get("bad"), map.get("new"), map.get("gone")),
        (Some(1), Some(2), None)
    );
    // A write that does not know of the record does not destroy it.
    assert_eq!(map.unreadable().len(), 1);
    map.insert_and_save("bad", 3).await.unwrap();
    let aside = map_name().nested("unreadable").unwrap();
    let aside = stored_in(&store, &aside).await;
    assert_eq!(aside.values().collect::<Vec<_>>(), ["\"x\""]);
    map.reload().await.unwrap();
    map.close().await.unwrap();
}
