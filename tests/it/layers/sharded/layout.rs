//! The stored list of shards: first use, and lists that do not fit.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use persistify::{
    ErrorKind, Memory, PersistentMap, Provider, Result, Sharded, Wanted,
    testing::{Fault, Method},
};

use super::{NAMES, Three};
use crate::support::{Plain, as_it_is, map_name, name, open, put, write_as_another};

/// Opens the map `map` as a program would that lists these shards.
async fn opened<P: Provider>(shards: impl IntoIterator<Item = (&'static str, P)>) -> Result<()> {
    let store = Sharded::new(shards)?;
    let map: PersistentMap<u32> = PersistentMap::builder(store, "map").open().await?;
    map.close().await
}

fn check(opened: Result<()>, kind: ErrorKind, words: &[&str]) {
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[tokio::test]
async fn another_list_is_an_error_that_names_the_difference() {
    let stores: Vec<_> = (0..4).map(|_| Memory::new()).collect();
    let list = |names: &[&'static str]| {
        let all = ["a", "b", "c", "d"];
        let store = |name: &&'static str| {
            let n = all.iter().position(|one| one == name).unwrap();
            (*name, stores[n].clone())
        };
        names.iter().map(store).collect::<Vec<_>>()
    };
    opened(list(&["a", "b", "c"])).await.unwrap();
    opened(list(&["c", "a", "b"])).await.unwrap();
    let invalid = ErrorKind::Invalid;
    let more = ["added [\"d\"]", "removed []", "generation 1"];
    check(opened(list(&["a", "b", "c", "d"])).await, invalid, &more);
    let fewer = ["added []", "removed [\"c\"]"];
    check(opened(list(&["a", "b"])).await, invalid, &fewer);
    let other = ["added [\"d\"]", "removed [\"c\"]", "[\"a\", \"b\", \"c\"]"];
    check(opened(list(&["a", "b", "d"])).await, invalid, &other);
    // Nothing was written.
    opened(list(&["a", "b", "c"])).await.unwrap();
    opened(list(&["d"])).await.unwrap();
}

#[tokio::test]
async fn swapped_and_replaced_stores_are_noticed() {
    let [a, b] = [Memory::new(), Memory::new()];
    let list = |a: &Memory, b: &Memory| [("a", a.clone()), ("b", b.clone())];
    opened(list(&a, &b)).await.unwrap();
    let words = ["this store is the shard \"b\"", "the shard is \"a\""];
    check(opened(list(&b, &a)).await, ErrorKind::Invalid, &words);
    let empty = Memory::new();
    let words = ["replaced by an empty store", "\"b\""];
    check(opened(list(&a, &empty)).await, ErrorKind::Unusable, &words);
    assert!(empty.maps().await.unwrap().is_empty());
    opened(list(&a, &b)).await.unwrap();
}

#[tokio::test]
async fn stores_with_entries_are_no_new_shards_unless_there_is_one() {
    let used = Memory::new();
    write_as_another(&used, vec![put("key", "1")]).await;
    let list = [("a", Memory::new()), ("b", used.clone())];
    check(
        opened(list).await,
        ErrorKind::Invalid,
        &["has entries", "\"b\""],
    );
    let map = open::<u32>(Sharded::new([("a", used)]).unwrap(), "map", as_it_is).await;
    assert_eq!(map.get("key"), Some(1));
}

#[test]
fn a_bad_list_is_an_error() {
    let kind = |names: &[&str]| {
        let shards = names.iter().map(|name| (name, Memory::new()));
        Sharded::new(shards).unwrap_err().kind()
    };
    let long = "x".repeat(256);
    for bad in [
        &[][..],
        &[""],
        &["a", "a"],
        &["a", "b", "a"],
        &["a\n"],
        &["a/b"],
        &[&long],
    ] {
        assert_eq!(kind(bad), ErrorKind::Invalid, "{bad:?}");
    }
    let shards = Sharded::new(["b", "a"].map(|name| (name, Memory::new()))).unwrap();
    assert!(shards.shards().eq(["a", "b"]));
    assert_eq!(format!("{:?}", shards.shard_of("key")).len(), 3);
}

#[tokio::test]
async fn a_shard_that_cannot_check_the_list_is_unsupported() {
    check(
        opened([("a", Plain(Memory::new()))]).await,
        ErrorKind::Unsupported,
        &["\"a\"", "several maps"],
    );
    let inner = Three::new().open();
    check(
        opened([("a", inner)]).await,
        ErrorKind::Unsupported,
        &["\"a\""],
    );
}

#[tokio::test]
async fn the_map_of_the_layout_is_hidden() {
    let three = Three::new();
    let store = three.open();
    opened(NAMES.into_iter().zip(three.0.iter().cloned()))
        .await
        .unwrap();
    assert!(three.0[0].maps().await.unwrap().contains(&name("sharded")));
    assert!(store.maps().await.unwrap().is_empty());
    let reserved = name("sharded");
    let load = store.load(&reserved, Wanted::All).await.map(drop);
    let nested = store
        .load(&reserved.nested("unreadable").unwrap(), Wanted::All)
        .await;
    let dropped = store.drop_map(&reserved).await;
    for refused in [load, nested.map(drop), dropped] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

/// A process died after it had written the list to some of the shards.
#[tokio::test]
async fn a_first_use_that_ends_anywhere_is_completed() {
    let faults = [Fault::Before, Fault::After, Fault::Lost];
    for fault in faults {
        let mut times = 0;
        for ends_at in 1.. {
            let three = Three::new();
            let commits = Arc::new(AtomicU64::new(0));
            for store in &three.0 {
                let commits = commits.clone();
                store.set_rule(move |call| {
                    let is_commit = call.method == Method::Commit;
                    let number = commits.fetch_add(u64::from(is_commit), SeqCst);
                    if is_commit && number + 1 >= ends_at {
                        return fault(ErrorKind::Unavailable);
                    }
                    Fault::None
                });
            }
            let ended = three.open().ping().await;
            three.0.iter().for_each(|store| store.behave());
            let map = open::<u32>(three.open(), "map", as_it_is).await;
            map.insert_and_save("key", 1).await.unwrap();
            if ended.is_ok() {
                break;
            }
            times += 1;
        }
        // Each of three shards is written to twice.
        assert_eq!(times, 6, "{fault:?}", fault = fault(ErrorKind::Unavailable));
    }
}

#[tokio::test]
async fn processes_that_begin_at_the_same_time_agree() {
    for _ in 0..20 {
        let three = Three::new();
        let stores: Vec<_> = (0..4).map(|_| three.open()).collect();
        let pings = stores.iter().map(|store| async {
            tokio::task::yield_now().await;
            store.ping().await
        });
        for ping in futures_util::future::join_all(pings).await {
            ping.unwrap();
        }
        assert!(stores[0].load(&map_name(), Wanted::All).await.is_ok());
    }
}

#[tokio::test]
async fn a_shard_that_is_down_is_named() {
    let three = Three::new();
    three.0[2].down(ErrorKind::Unavailable);
    let error = three.open().ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the shard is \"c\""), "{error}");
}
