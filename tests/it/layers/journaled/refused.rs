//! Changes that the remote refuses after they were acknowledged.

use std::fs;

use persistify::{ErrorKind, MapBatch, Provider, Wanted};

use super::{journaled, stats};
use crate::support::{
    Pen, Store, map_name, put,
    records::{all, pairs},
    store, stored,
};

fn keys(of: &str) -> Vec<persistify::Change> {
    of.chars().map(|key| put(&key.to_string(), "1")).collect()
}

async fn rest_arrives(refuse: impl Fn(&Store), clear: bool) {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    store.load(&map_name(), Wanted::All).await.unwrap();
    let mut pen = Pen::new();
    pen.write(&store, &map_name(), vec![put("old", "0")])
        .await
        .unwrap();
    store.drain().await.unwrap();
    refuse(&remote);
    let part = MapBatch::new(map_name(), keys("abcdefg")).clearing(clear);
    let batch = pen.batch(vec![part]).divisible(true);
    store.commit(&batch).await.unwrap();
    pen.write(&store, &map_name(), vec![put("later", "1")])
        .await
        .unwrap();
    store.drain().await.unwrap();
    let mut expected = vec!["a", "c", "d", "e", "g", "later"];
    if !clear {
        expected.push("old");
    }
    let found = stored(&remote).await;
    assert!(found.keys().eq(expected), "{found:?}");
    let state = stats(&store);
    assert_eq!((state.set_aside, state.batches), (2, 0));
    assert!(state.error.is_none());
    let aside = fs::read_to_string(folder.path().join("map.refused.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = { aside.lines() }
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let keys: Vec<_> = lines
        .iter()
        .map(|line| line["change"]["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["b", "f"]);
    assert!(
        lines[0]["error"]
            .as_str()
            .unwrap()
            .contains("refused on purpose")
    );
    // The times are those of the batch, also in parts.
    for record in all(remote.inner(), &map_name()).await {
        assert_eq!(record.updated_at, Some(pen.at), "{}", record.key);
    }
    // The remote remembers the writer: a repeat changes nothing.
    let batches = remote.batches().len();
    store.commit(&batch).await.unwrap_err();
    assert_eq!(remote.batches().len(), batches);
    drop(store);
}

#[tokio::test]
async fn a_refused_change_is_set_aside_and_the_rest_of_its_batch_goes_on() {
    for clear in [false, true] {
        rest_arrives(|remote| remote.refuse(["b", "f"]), clear).await;
        rest_arrives(|remote| remote.refuse_unnamed(["b", "f"]), clear).await;
    }
}

#[tokio::test]
async fn the_number_of_changes_set_aside_survives_a_restart() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    remote.refuse(["a"]);
    for _ in 0..2 {
        Pen::new()
            .write(&store, &map_name(), keys("ab"))
            .await
            .unwrap();
        store.drain().await.unwrap();
    }
    assert_eq!(stats(&store).set_aside, 2);
    let store = super::restart(store, || journaled(&remote, folder.path())).await;
    assert_eq!(stats(&store).set_aside, 2);
    let found = all(remote.inner(), &map_name()).await;
    assert_eq!(pairs(&found), [("b".into(), "1".into())]);
}

/// The remote fails in the middle of the parts: nothing is lost, and the rest follows.
#[tokio::test]
async fn a_failure_between_the_parts_of_a_refused_batch_loses_nothing() {
    use persistify::testing::Fault;
    for nth in 2..9 {
        for fault in [Fault::Before, Fault::Lost, Fault::After] {
            let (remote, folder) = (store(), tempfile::tempdir().unwrap());
            let store = journaled(&remote, folder.path());
            store.load(&map_name(), Wanted::All).await.unwrap();
            remote.refuse_unnamed(["b"]);
            remote.fail_nth(nth, fault(ErrorKind::Unavailable));
            let mut pen = Pen::new();
            pen.write(&store, &map_name(), keys("abcd")).await.unwrap();
            pen.write(&store, &map_name(), vec![put("a", "2")])
                .await
                .unwrap();
            while store.drain().await.is_err() {}
            let expected = [("a", "2"), ("c", "1"), ("d", "1")];
            let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
            let mut found = stored(&remote).await;
            // A call that fails after its effect is not asked whether it refuses.
            let is_taken = found.remove("b").is_some();
            assert_eq!(found, expected.into(), "{nth}");
            let aside = stats(&store).set_aside;
            assert!(is_taken || (1..=2).contains(&aside), "{aside}");
        }
    }
}
