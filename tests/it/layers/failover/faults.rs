//! Faults of the standby: they never reach a commit, and the copy is complete afterwards.

use futures_util::FutureExt;
use persistify::{
    Change, ErrorKind, Provider, Wanted,
    testing::{Fault, Hang, Method},
};

use super::{assert_copied, mirror, pair};
use crate::support::{MINUTE, Pen, SECOND, map_name, put, records::all, settle, store};

#[tokio::test(start_paused = true)]
async fn a_standby_that_is_down_or_hangs_never_delays_a_commit_and_catches_up() {
    for fault in [
        Fault::Before(ErrorKind::Unavailable),
        Fault::Lost(ErrorKind::Unavailable),
        Fault::After(ErrorKind::Unavailable),
        Fault::Before(ErrorKind::Unusable),
        Fault::Hang(Hang::new()),
    ] {
        for method in [Method::Commit, Method::Load] {
            let (primary, standby, layer) = pair();
            let (map, mut pen) = (map_name(), Pen::new());
            pen.put(&layer, &map, "before", "0").await;
            layer.catch_up().await.unwrap();
            let fault_of = fault.clone();
            standby.set_rule(move |call| {
                if call.method == method {
                    fault_of.clone()
                } else {
                    Fault::None
                }
            });
            for n in 0..5 {
                let changes = vec![put(&format!("key {n}"), "1"), Change::delete("before")];
                let batch = pen.changes(&map, changes);
                // The primary in memory answers in one poll.
                layer.commit(&batch).now_or_never().unwrap().unwrap();
                tokio::time::sleep(SECOND).await;
            }
            tokio::time::sleep(MINUTE).await;
            // A commit that took effect needs no other: its watermark is read again.
            if method == Method::Commit && !matches!(fault, Fault::After(_)) {
                let lag = layer.lag();
                assert_eq!(lag.maps, std::slice::from_ref(&map), "{fault:?}");
                assert!(lag.oldest > Some(MINUTE) && lag.error.is_some(), "{lag:?}");
            }
            standby.behave();
            tokio::time::sleep(MINUTE).await;
            assert_copied(primary.inner(), standby.inner(), &map).await;
            let lag = layer.lag();
            assert!(lag.maps.is_empty() && lag.error.is_none(), "{lag:?}");
        }
    }
}

/// A commit to the standby whose caller has given up arrives after later ones.
#[tokio::test(start_paused = true)]
async fn a_late_commit_to_the_standby_brings_nothing_back() {
    for is_modest in [false, true] {
        let (primary, standby) = (store(), store());
        let layer = mirror(&primary, &standby);
        let (map, mut pen) = (map_name(), Pen::new());
        pen.put(&layer, &map, "a", "0").await;
        layer.catch_up().await.unwrap();
        let hang = standby.hang_next();
        pen.put(&layer, &map, "a", "1").await;
        hang.hangs().await;
        tokio::time::sleep(MINUTE).await;
        pen.put(&layer, &map, "a", "2").await;
        if is_modest {
            pen.write(&layer, &map, vec![Change::delete("a")])
                .await
                .unwrap();
        }
        layer.catch_up().await.unwrap();
        let late = hang.land().await;
        assert!(
            !late.is_empty() && late.iter().all(Result::is_err),
            "{late:?}"
        );
        assert_copied(primary.inner(), standby.inner(), &map).await;
    }
}

/// A map whose value the standby refuses must not keep the others from it.
#[tokio::test(start_paused = true)]
async fn a_map_that_cannot_be_copied_does_not_delay_the_others() {
    let (primary, standby, layer) = pair();
    let [good, poison] = ["good", "bad"].map(crate::support::name);
    let mut pen = Pen::new();
    standby.refuse(["poison"]);
    pen.put(&layer, &poison, "poison", "1").await;
    pen.put(&layer, &good, "a", "1").await;
    let error = layer.catch_up().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.map()),
        (ErrorKind::Refused, Some("bad"))
    );
    assert_copied(primary.inner(), standby.inner(), &good).await;
    assert_eq!(layer.lag().maps, std::slice::from_ref(&poison));
    // It has no complete copy, so it is not loaded from there.
    primary.down(ErrorKind::Unavailable);
    layer.load(&good, Wanted::All).await.unwrap();
    let error = layer.load(&poison, Wanted::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no complete copy"), "{error}");
    assert_eq!(layer.maps().await.unwrap(), [good]);
}

/// The outcome of a commit is unknown to the caller, but the primary has it.
#[tokio::test(start_paused = true)]
async fn a_commit_without_an_answer_is_copied() {
    let (primary, standby, layer) = pair();
    let (map, mut pen) = (map_name(), Pen::new());
    pen.put(&layer, &map, "a", "0").await;
    tokio::time::sleep(SECOND).await;
    primary.fail_next(1, Fault::After(ErrorKind::Unavailable));
    let batch = pen.changes(&map, vec![put("a", "1")]);
    layer.commit(&batch).await.unwrap_err();
    tokio::time::sleep(SECOND).await;
    assert_copied(primary.inner(), standby.inner(), &map).await;
    // The caller drops the future, and the commit takes effect.
    let hang = primary.hang_next();
    let batch = pen.changes(&map, vec![put("a", "2")]);
    let committing = layer.commit(&batch);
    assert!(committing.now_or_never().is_none());
    hang.land().await;
    tokio::time::sleep(SECOND).await;
    assert_copied(primary.inner(), standby.inner(), &map).await;
    assert!(layer.lag().maps.is_empty());
}

/// A catch-up is dropped at each of its awaits, and another one completes it.
#[tokio::test(start_paused = true)]
async fn a_catch_up_can_be_dropped_at_any_await() {
    for polls in 0.. {
        let (primary, standby, layer) = pair();
        let (map, mut pen) = (map_name(), Pen::new());
        let slow = |store: &crate::support::Store, method| {
            let hang = Hang::new();
            store.fail_next_of(method, 1, Fault::Hang(hang.clone()));
            hang
        };
        pen.put(primary.inner(), &map, "a", "1").await;
        layer.load(&map, Wanted::All).await.unwrap();
        let points = [
            (&standby, Method::Load),
            (&primary, Method::Load),
            (&standby, Method::Commit),
        ];
        let Some((store, method)) = points.get(polls) else {
            break;
        };
        let hang = slow(store, *method);
        let mut catching_up = Box::pin(layer.catch_up());
        tokio::select! {
            biased;
            done = &mut catching_up => panic!("it did not hang: {done:?}"),
            () = hang.hangs() => {}
        }
        drop(catching_up);
        hang.release();
        hang.land().await;
        settle().await;
        pen.put(&layer, &map, "b", "2").await;
        layer.catch_up().await.unwrap();
        assert_copied(primary.inner(), standby.inner(), &map).await;
        assert_eq!(all(standby.inner(), &map).await.len(), 2);
    }
}
