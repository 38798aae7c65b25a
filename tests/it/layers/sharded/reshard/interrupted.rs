//! Runs that end in the middle, and runs that another one has taken over.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use persistify::{
    ErrorKind, Provider, Record,
    testing::{Fault, Hang, Method},
};

use super::{super::faults::polled, ENTRIES, Stores, fill, without_revision};
use crate::support::{as_it_is, open};

/// Expects that no list opens while a reshard is not finished.
async fn check_closed(stores: &Stores, lists: &[&[&'static str]]) {
    for list in lists {
        let opened = stores.list(list).ping().await;
        let error = opened.unwrap_err();
        let kinds = [ErrorKind::Unusable, ErrorKind::Invalid];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
}

#[tokio::test]
async fn a_reshard_that_ends_at_any_commit_is_resumed() {
    for (from, to) in [
        (&["a", "b"][..], &["a", "b", "c"][..]),
        (&["a", "b"], &["c", "d"]),
        (&["a", "b", "c"], &["b", "c"]),
    ] {
        for fault in [Fault::Before, Fault::After, Fault::Lost] {
            let mut nth = 1;
            loop {
                let stores = Stores::new();
                let (old, new) = (stores.list(from), stores.list(to));
                fill(&old).await;
                let before = without_revision(&stores.records(&old).await);
                stores.fail_from(nth, fault);
                let ended = stores.list(from).reshard(&stores.list(to)).await;
                stores.behave();
                if ended.is_err() && nth > 1 {
                    // Some shard has ended the generation, or all are published.
                    if old.ping().await.is_err() && stores.list(to).ping().await.is_err() {
                        check_closed(&stores, &[from, to]).await;
                    }
                }
                stores.list(from).reshard(&stores.list(to)).await.unwrap();
                let after = stores.records(&new).await;
                assert_eq!(without_revision(&after), before, "ended at {nth}");
                open::<u64>(stores.list(to), "map", as_it_is).await;
                nth += 1;
                if ended.is_ok() {
                    break;
                }
            }
            assert!(nth > 8, "{nth}");
        }
    }
}

#[tokio::test]
async fn a_reshard_that_is_cancelled_anywhere_is_resumed() {
    let mut polls = 0;
    loop {
        polls += 1;
        let stores = Stores::new();
        let (old, new) = (stores.list(&["a", "b"]), stores.list(&["b", "c"]));
        fill(&old).await;
        let before = without_revision(&stores.records(&old).await);
        let hang = Hang::new();
        let calls = Arc::new(AtomicU64::new(0));
        for store in stores.0.values() {
            let (hang, calls) = (hang.clone(), calls.clone());
            // Hangs before its effect. The hang is released later: a commit lands late.
            store.set_rule(move |call| match call.method {
                Method::Commit if calls.fetch_add(1, SeqCst) + 1 == polls => {
                    Fault::Hang(hang.clone())
                }
                _ => Fault::None,
            });
        }
        let cancelled = polled(old.reshard(&new), 500).await;
        stores.behave();
        old.reshard(&new).await.unwrap();
        hang.release();
        tokio::task::yield_now().await;
        assert_eq!(without_revision(&stores.records(&new).await), before);
        if cancelled.is_some() {
            break;
        }
    }
    assert!(polls > 8);
}

/// A run was taken over by a second one while its commit was on its way. The map was opened and
/// written to since. The first run must change nothing more.
#[tokio::test]
async fn a_run_that_was_taken_over_changes_nothing() {
    let mut nth = 0;
    loop {
        nth += 1;
        let stores = Stores::new();
        let list = |names| stores.list(names);
        fill(&list(&["a", "b"])).await;
        let hang = Hang::new();
        let calls = Arc::new(AtomicU64::new(0));
        for store in stores.0.values() {
            let (hang, calls) = (hang.clone(), calls.clone());
            store.set_rule(move |call| match call.method {
                Method::Commit if calls.fetch_add(1, SeqCst) + 1 == nth => {
                    Fault::Hang(hang.clone())
                }
                _ => Fault::None,
            });
        }
        let (old, new) = (list(&["a", "b"]), list(&["b", "c"]));
        let first = tokio::spawn(async move { old.reshard(&new).await });
        while calls.load(SeqCst) < nth && !first.is_finished() {
            tokio::task::yield_now().await;
        }
        if first.is_finished() {
            break;
        }
        let new = list(&["b", "c"]);
        list(&["a", "b"]).reshard(&new).await.unwrap();
        let map = open::<u64>(new.clone(), "map", as_it_is).await;
        for n in 0..ENTRIES {
            map.insert(format!("key {n}"), 1_000 + n);
        }
        map.remove("key 3");
        map.flush().await.unwrap();
        hang.release();
        let taken_over = first.await.unwrap();
        // The last commit may have been the only one that was missing.
        if let Err(error) = taken_over {
            assert_eq!(error.kind(), ErrorKind::Superseded, "{error}");
        }
        let records = stores.records(&new).await;
        assert_eq!(records.len() as u64, ENTRIES - 1);
        let is_new = |record: &Record| record.value.as_ref().unwrap().bytes.len() == 4;
        assert!(records.values().all(is_new), "{nth}");
        map.insert_and_save("key 3", 7).await.unwrap();
    }
    assert!(nth > 8);
}
