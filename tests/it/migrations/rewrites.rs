//! Maps that write migrated values back to the store.

use super::*;

#[tokio::test(start_paused = true)]
async fn rewrite_on_load_brings_the_store_to_the_current_schema_version() {
    let store = mixed().await;
    let map = current(&store).rewrite_on_load().open().await.unwrap();
    assert_eq!(map.pending(), 3, "k3 is of the current schema");
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!((map.pending(), map.stats().changes), (0, 3));
    let schema = |n| (format!("k{n}"), (3, text(3, n)));
    assert_eq!(schemas(store.inner()).await, (0..4).map(schema).collect());
    map.close().await.unwrap();
    let map = current(&store).rewrite_on_load().open().await.unwrap();
    assert_eq!((map.pending(), map.len()), (0, 4));
}

/// A rewrite on load is no change by the application, so it must not overwrite a value that another
/// process has written since.
#[tokio::test(start_paused = true)]
async fn a_rewrite_never_overwrites_what_another_process_has_written() {
    let store = mixed().await;
    let map = current(&store).rewrite_on_load().open().await.unwrap();
    let theirs = vec![
        record_of("k0", 3, 100),
        record_of("k1", 1, 101),
        Change::delete("k2"),
    ];
    write_as_another(store.inner(), theirs).await;
    map.flush().await.unwrap();
    let now = schemas(store.inner()).await;
    assert_eq!(now["k0"], (3, text(3, 100)));
    assert_eq!(
        now["k1"],
        (1, text(1, 101)),
        "theirs stays as they wrote it"
    );
    assert_eq!(now.len(), 3);
    assert_eq!(map.get("k0"), Some(three(100)));
    assert_eq!(map.get("k1"), Some(three(101)), "it is migrated anyway");
    assert_eq!((map.get("k2"), map.len()), (None, 3));
    // An explicit write, in contrast, overwrites.
    map.insert_and_save("k0", three(1)).await.unwrap();
    assert_eq!(schemas(store.inner()).await["k0"], (3, text(3, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_write_before_the_rewrite_is_a_write() {
    for write in [
        |map: &PersistentMap<Three>| map.insert("k1", three(50)).is_some(),
        |map: &PersistentMap<Three>| map.update("k1", |v| v.count = 50).is_some(),
    ] {
        let store = mixed().await;
        let map = current(&store).rewrite_on_load().open().await.unwrap();
        assert!(write(&map));
        write_as_another(store.inner(), vec![record_of("k1", 3, 100)]).await;
        map.flush().await.unwrap();
        assert_eq!(schemas(store.inner()).await["k1"], (3, text(3, 50)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_while_the_rewrite_is_on_its_way_is_a_write() {
    let store = mixed().await;
    let map = current(&store).rewrite_on_load().open().await.unwrap();
    let hang = store.hang_next();
    let flush = tokio::spawn({
        let map = map.clone();
        async move { map.flush().await }
    });
    hang.hangs().await;
    map.update("k1", |v| v.count = 50);
    write_as_another(store.inner(), vec![record_of("k1", 3, 100)]).await;
    hang.release();
    flush.await.unwrap().unwrap();
    map.flush().await.unwrap();
    assert_eq!(map.get("k1"), Some(three(50)));
    assert_eq!(schemas(store.inner()).await["k1"], (3, text(3, 50)));
}

#[tokio::test(start_paused = true)]
async fn a_rewrite_goes_through_a_failing_store() {
    let kind = ErrorKind::Unavailable;
    for fault in [Fault::Before(kind), Fault::Lost(kind), Fault::After(kind)] {
        let store = mixed().await;
        let map = current(&store).rewrite_on_load().open().await.unwrap();
        store.fail_next(3, fault.clone());
        while map.flush().await.is_err() {}
        let schema = |n| (format!("k{n}"), (3, text(3, n)));
        assert_eq!(schemas(store.inner()).await, (0..4).map(schema).collect());
        let batches = store.batches();
        let changes = &batches.last().unwrap().maps[0].changes;
        assert!(changes.iter().all(|c| matches!(c.expect, Expect::At(_))));
        // An unknown outcome is resolved by the identical batch.
        let same = batches.iter().all(|batch| batch.id == batches[0].id);
        assert_eq!(same, !matches!(fault, Fault::Before(_)), "{fault:?}");
    }
}

/// A refused rewrite loses nothing, so it does not keep a map from closing.
#[tokio::test(start_paused = true)]
async fn a_rewrite_that_is_refused_leaves_the_record_as_it_is() {
    let store = mixed().await;
    store.refuse_unnamed(["k1"]);
    let map = current(&store).rewrite_on_load().open().await.unwrap();
    map.flush().await.unwrap();
    assert_eq!(map.get("k1"), Some(three(1)));
    assert!(map.refused().is_empty());
    let now = schemas(store.inner()).await;
    assert_eq!(now["k1"], (1, text(1, 1)));
    assert_eq!(now["k0"], (3, text(3, 0)));
    // A change by the application is refused as usual.
    map.insert("k1", three(2));
    assert_eq!(map.flush().await.unwrap_err().kind(), ErrorKind::Refused);
    store.behave();
    map.retry_refused();
    map.close().await.unwrap();
    assert_eq!(schemas(store.inner()).await["k1"], (3, text(3, 2)));
}
