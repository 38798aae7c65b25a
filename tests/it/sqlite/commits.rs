//! Commits, and the state of the file after a reopen.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use persistify::{Change, ErrorKind, Expect, MapBatch, Otherwise, Payload, Provider, Revision};

use super::*;

#[tokio::test]
async fn entries_survive_a_reopen() {
    let place = Place::new();
    let (stock, mut pen) = (name("stock"), Pen::new());
    let end = pen.at + Duration::from_mins(1);
    let payload = Payload::json(r#"{"n":1}"#).with_schema(7);
    let sqlite = place.open().await;
    let changes = vec![
        Change::put("apple", payload.clone(), Some(end)),
        put("pear", "2"),
    ];
    let revision = pen
        .write(&sqlite, &stock, changes)
        .await
        .unwrap()
        .revision
        .unwrap();
    sqlite.close().await.unwrap();

    let sqlite = place.open().await;
    let expected = [
        Record::new("apple", Some(payload), revision)
            .with_expires_at(Some(end))
            .with_updated_at(Some(pen.at)),
        Record::new("pear", Some(Payload::json("2")), revision).with_updated_at(Some(pen.at)),
    ];
    assert_eq!(all(&sqlite, &stock).await, expected);
    assert_eq!(sqlite.maps().await.unwrap(), std::slice::from_ref(&stock));
    let horizon = sqlite.load(&stock, Wanted::All).await.unwrap().horizon;
    assert_eq!(horizon, revision);
}

/// One batch holds entries with different expiries or none, and different schema versions.
#[tokio::test]
async fn many_entries_keep_their_own_expiry_and_schema() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    for turn in 0..2 {
        let entries: Vec<_> = (0..100_u32)
            .map(|n| {
                let payload = Payload::json(format!("[{turn},{n}]")).with_schema((n + turn) % 3);
                let lives = Duration::from_secs(u64::from(60 + n));
                let end = ((n + turn) % 2 == 0).then(|| pen.at + lives);
                (format!("{n:02}"), payload, end)
            })
            .collect();
        let mut changes: Vec<_> = entries
            .iter()
            .map(|(key, payload, end)| Change::put(key.as_str(), payload.clone(), *end))
            .collect();
        changes.insert(20, put("gone", "1"));
        changes.insert(60, Change::delete("never"));
        changes.push(Change::touch("neither", None));
        let written = pen.write(&sqlite, &map, changes).await.unwrap();
        let gone = vec![Change::delete("gone")];
        let at = pen.at;
        pen.write(&sqlite, &map, gone).await.unwrap();
        let expected = entries.into_iter().map(|(key, payload, end)| {
            Record::new(key, Some(payload), written.revision.unwrap())
                .with_expires_at(end)
                .with_updated_at(Some(at))
        });
        let expected: Vec<_> = expected.collect();
        assert_eq!(all(&sqlite, &map).await, expected);
    }
}

#[tokio::test]
async fn puts_touches_and_deletes_change_their_own_entry_only() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let end = pen.at + Duration::from_secs(5);
    let first = pen
        .write(
            &sqlite,
            &map,
            vec![put("a", "1"), put("b", "2"), put("c", "3")],
        )
        .await
        .unwrap();
    let written_at = pen.at;
    pen.at += Duration::from_secs(1);
    let changes = vec![
        put("a", "10"),
        Change::touch("b", Some(end)),
        Change::delete("c"),
        Change::touch("nobody", Some(end)),
        Change::delete("nobody either"),
    ];
    let second = pen.write(&sqlite, &map, changes).await.unwrap();
    assert!(second.revision > first.revision);

    let records = all(&sqlite, &map).await;
    assert_eq!(
        pairs(&records),
        [("a".into(), "10".into()), ("b".into(), "2".into())]
    );
    assert_eq!(records[0].updated_at, Some(pen.at));
    assert_eq!(records[1].updated_at, Some(written_at));
    assert_eq!(records[1].expires_at, Some(end));
    assert_eq!(Some(records[1].revision), second.revision);
}

#[tokio::test]
async fn a_clear_comes_before_the_changes_of_its_batch() {
    let place = Place::new();
    let (map, other, mut pen) = (name("m"), name("other"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "old", "1").await;
    pen.put(&sqlite, &other, "old", "1").await;
    let absent = put("old", "2").expect(Expect::Absent, Otherwise::Fail);
    let present = put("new", "2").expect(Expect::Present, Otherwise::Skip);
    let batch = pen.batch(vec![
        MapBatch::new(map.clone(), vec![absent, present]).clearing(true),
    ]);
    let committed = sqlite.commit(&batch).await.unwrap();
    assert_eq!(committed.skipped.len(), 1);
    assert_eq!(
        pairs(&all(&sqlite, &map).await),
        [("old".into(), "2".into())]
    );
    assert_eq!(
        pairs(&all(&sqlite, &other).await),
        [("old".into(), "1".into())]
    );
}

#[tokio::test]
async fn several_maps_land_together_or_not_at_all() {
    let place = Place::new();
    let (a, b, mut pen) = (name("a"), name("b"), Pen::new());
    let sqlite = place.open().await;
    let both = |value: &str, expect| {
        vec![
            MapBatch::new(a.clone(), vec![put("k", value)]),
            MapBatch::new(
                b.clone(),
                vec![put("k", value).expect(expect, Otherwise::Fail)],
            ),
        ]
    };
    let batch = pen.batch(both("1", Expect::Present));
    let conflict = error(sqlite.commit(&batch).await);
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    assert!(!conflict.may_have_applied());
    assert_eq!(conflict.map(), Some("b"));
    assert_eq!(conflict.found(), None);
    assert!(all(&sqlite, &a).await.is_empty());
    assert_eq!(sqlite.maps().await.unwrap(), []);

    let batch = pen.batch(both("2", Expect::Absent));
    let revision = sqlite.commit(&batch).await.unwrap().revision.unwrap();
    for map in [&a, &b] {
        assert_eq!(one(&sqlite, map, "k").await.unwrap().revision, revision);
    }
}

#[tokio::test]
async fn conditions_hold_or_fail_by_the_stored_entry() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let gone = Change::put("gone", Payload::json("0"), Some(pen.at));
    let committed = pen.write(&sqlite, &map, vec![put("here", "1"), gone]).await;
    let revision = committed.unwrap().revision.unwrap();
    let other = Revision::new(revision.get() + 1);
    let cases = [
        ("here", Expect::Absent, false),
        ("here", Expect::Present, true),
        ("here", Expect::At(revision), true),
        ("here", Expect::At(other), false),
        ("gone", Expect::Absent, true),
        ("gone", Expect::Present, false),
        ("gone", Expect::At(revision), true),
        ("none", Expect::Absent, true),
        ("none", Expect::Present, false),
        ("none", Expect::At(revision), false),
    ];
    for (key, expect, holds) in cases {
        let touched = Change::delete("unrelated").expect(Expect::Any, Otherwise::Fail);
        let change = Change::touch(key, None).expect(expect, Otherwise::Fail);
        // A batch that fails is rolled back, so all cases see the same state.
        if holds {
            let skip = Change::touch(key, None).expect(expect, Otherwise::Skip);
            let fail = put("other", "1").expect(Expect::Present, Otherwise::Fail);
            let result = pen.write(&sqlite, &map, vec![skip, fail]).await;
            assert_eq!(&*error(result).keys()[0], "other", "{key} {expect:?}");
        } else {
            let stored = one(&sqlite, &map, key).await;
            let conflict = error(pen.write(&sqlite, &map, vec![touched, change]).await);
            assert_eq!(conflict.kind(), ErrorKind::Conflict, "{key} {expect:?}");
            assert_eq!(conflict.keys(), [Arc::from(key)]);
            assert_eq!(conflict.found(), stored.as_ref());
        }
    }
}

#[tokio::test]
async fn times_before_1970_and_far_ahead_are_kept_to_the_millisecond() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.at = SystemTime::UNIX_EPOCH - Duration::from_millis(1_500);
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    let fine = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_999_999);
    let old = SystemTime::UNIX_EPOCH - Duration::from_nanos(1_000_001);
    let changes = vec![
        Change::put("far", Payload::json("1"), Some(far)),
        Change::put("fine", Payload::json("1"), Some(fine)),
        Change::put("old", Payload::json("1"), Some(old)),
    ];
    pen.write(&sqlite, &map, changes).await.unwrap();
    let records = all(&sqlite, &map).await;
    assert_eq!(records[0].updated_at, Some(pen.at));
    assert_eq!(records[0].expires_at, Some(far));
    // Rounded down: an entry never expires late.
    let rounded = SystemTime::UNIX_EPOCH + Duration::from_millis(1);
    assert_eq!(records[1].expires_at, Some(rounded));
    let rounded = SystemTime::UNIX_EPOCH - Duration::from_millis(2);
    assert_eq!(records[2].expires_at, Some(rounded));
}

#[tokio::test]
async fn values_of_ten_megabytes_and_empty_ones_are_kept() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let large = format!("\"{}\"", "x".repeat(10 << 20));
    let changes = vec![
        put("large", &large),
        put("", "\"no key\""),
        put("no value", ""),
    ];
    pen.write(&sqlite, &map, changes).await.unwrap();
    sqlite.close().await.unwrap();
    let sqlite = place.open().await;
    assert_eq!(text_of(&sqlite, &map, "large").await.unwrap(), large);
    assert_eq!(text_of(&sqlite, &map, "").await.unwrap(), "\"no key\"");
    assert_eq!(text_of(&sqlite, &map, "no value").await.unwrap(), "");
}

#[tokio::test]
async fn a_dropped_commit_does_nothing_before_its_first_poll_and_may_go_on_after() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let batch = pen.changes(&map, vec![put("k", "1")]);
    drop(sqlite.commit(&batch));
    assert!(all(&sqlite, &map).await.is_empty());

    for polls in 1..20 {
        let batch = pen.changes(&map, vec![put("k", &polls.to_string())]);
        let early = {
            let mut commit = pin!(sqlite.commit(&batch));
            poll_times(commit.as_mut(), polls)
        };
        let answer = sqlite.commit(&batch).await.unwrap();
        if let Some(early) = early {
            assert_eq!(early.unwrap(), answer);
        }
        let stored = one(&sqlite, &map, "k").await.unwrap();
        assert_eq!(Some(stored.revision), answer.revision);
        assert_eq!(text(&stored), polls.to_string());
    }
}

fn poll_times<F: Future>(mut future: std::pin::Pin<&mut F>, times: usize) -> Option<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..times {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return Some(done);
        }
        std::thread::yield_now();
    }
    None
}

#[tokio::test]
async fn after_close_every_call_is_answered_closed() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "k", "1").await;
    sqlite.close().await.unwrap();
    sqlite.close().await.unwrap();
    let clone = sqlite.clone();
    let batch = pen.changes(&map, vec![put("k", "2")]);
    let errors = [
        error(clone.commit(&batch).await),
        error(clone.load(&map, Wanted::All).await),
        error(clone.maps().await),
        error(clone.ping().await),
        error(clone.release(&map).await),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert!(!error.may_have_applied());
    }
    // All data is in the one file.
    assert!(!place.folder.path().join("maps.db-wal").exists());
}

#[tokio::test]
async fn the_last_handle_closes_the_file() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let clone = sqlite.clone();
    pen.put(&sqlite, &map, "k", "1").await;
    drop(sqlite);
    pen.put(&clone, &map, "k", "2").await;
    assert!(!place.is_free());
    drop(clone);
    place.wait_until_free();
    assert_eq!(text_of(&place.open().await, &map, "k").await.unwrap(), "2");
}

#[tokio::test]
async fn a_release_leaves_the_map_as_it_is() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "k", "1").await;
    sqlite.release(&map).await.unwrap();
    sqlite.ping().await.unwrap();
    pen.put(&sqlite, &map, "l", "2").await;
    assert_eq!(all(&sqlite, &map).await.len(), 2);
}
