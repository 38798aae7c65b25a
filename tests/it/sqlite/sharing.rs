//! Several connections and processes on one file.

use std::sync::mpsc;

use persistify::{ErrorKind, PersistentMap, Provider, RetryPolicy};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_another_writer() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "k", "0").await;
    let other = place.other();
    other
        .execute_batch("BEGIN IMMEDIATE; UPDATE map_m SET value = '1'")
        .unwrap();
    let commit = {
        let (sqlite, batch) = (sqlite.clone(), pen.changes(&map, vec![put("l", "2")]));
        tokio::spawn(async move { sqlite.commit(&batch).await })
    };
    // Reads do not wait.
    assert_eq!(text_of(&sqlite, &map, "k").await.unwrap(), "0");
    assert!(!commit.is_finished());
    other.execute_batch("COMMIT").unwrap();
    commit.await.unwrap().unwrap();
    let expected = [("k".into(), "1".into()), ("l".into(), "2".into())];
    assert_eq!(pairs(&all(&sqlite, &map).await), expected);
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_unavailable_with_nothing_applied() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = Sqlite::builder(place.path())
        .busy_timeout(Duration::from_millis(20))
        .open()
        .await
        .unwrap();
    pen.put(&sqlite, &map, "k", "0").await;
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let batch = pen.changes(&map, vec![put("k", "1")]);
    for failed in [
        error(sqlite.commit(&batch).await),
        error(sqlite.ping().await),
    ] {
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed}");
        assert!(!failed.may_have_applied());
        assert!(std::error::Error::source(&failed).is_some());
    }
    assert_eq!(text_of(&sqlite, &map, "k").await.unwrap(), "0");
    // An initialized file opens and loads without waiting for the lock.
    let hour = Duration::from_hours(1);
    let patient = Sqlite::builder(place.path()).busy_timeout(hour).open();
    let second = patient.await.unwrap();
    assert_eq!(text_of(&second, &map, "k").await.unwrap(), "0");
    other.execute_batch("ROLLBACK").unwrap();
    sqlite.ping().await.unwrap();
    sqlite.commit(&batch).await.unwrap();
    assert_eq!(text_of(&sqlite, &map, "k").await.unwrap(), "1");
}

/// Several handles open a new file at once, and one of them creates its tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_file_is_made_once_however_many_open_it() {
    for _ in 0..10 {
        let place = Place::new();
        let (map, start) = (name("m"), Arc::new(tokio::sync::Barrier::new(6)));
        let opening = (0..6).map(|n| {
            let (path, map, start) = (place.path(), map.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                let sqlite = Sqlite::open(path).await.unwrap();
                Pen::new().put(&sqlite, &map, &n.to_string(), "1").await;
            })
        });
        for opened in opening.collect::<Vec<_>>() {
            opened.await.unwrap();
        }
        assert_eq!(all(&place.open().await, &map).await.len(), 6);
    }
}

/// With two providers on one file, no commit is lost and no revision is used twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_at_one_file_lose_nothing() {
    let place = Place::new();
    let map = name("m");
    place.open().await.close().await.unwrap();
    let writing = (0..2).map(|who| {
        let (path, map) = (place.path(), map.clone());
        tokio::spawn(async move {
            let sqlite = Sqlite::open(path).await.unwrap();
            let mut pen = Pen::new();
            let mut revisions = Vec::new();
            for n in 0..100 {
                revisions.push(pen.put(&sqlite, &map, &format!("{who}-{n}"), "1").await);
            }
            assert!(revisions.is_sorted());
            revisions
        })
    });
    let mut revisions = Vec::new();
    for writer in writing.collect::<Vec<_>>() {
        revisions.extend(writer.await.unwrap());
    }
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), 200);
    assert_eq!(all(&place.open().await, &map).await.len(), 200);
}

/// Another program can lock the file as soon as a commit has returned.
#[tokio::test]
async fn no_lock_is_held_between_commits() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "k", "0").await;
    let (done, finished) = mpsc::channel();
    let path = place.path();
    std::thread::spawn(move || {
        let other = Connection::open(path).unwrap();
        other.busy_timeout(Duration::ZERO).unwrap();
        other
            .execute_batch("BEGIN EXCLUSIVE; UPDATE map_m SET value = '1'; COMMIT")
            .unwrap();
        done.send(()).unwrap();
    });
    finished.recv().unwrap();
    assert_eq!(text_of(&sqlite, &map, "k").await.unwrap(), "1");
}

/// After another program had locked the file for a long time, a close waited until the next
/// probe, and so did the other maps of the file.
#[tokio::test]
async fn a_close_after_the_file_was_held_does_not_wait_for_a_probe() {
    let place = Place::new();
    let sqlite = Sqlite::builder(place.path()).busy_timeout(Duration::from_millis(20));
    let sqlite = sqlite.open().await.unwrap();
    let open = |name: &'static str| {
        let retry = RetryPolicy::default().patience(Duration::from_millis(200));
        let map = PersistentMap::<u64>::builder(sqlite.clone(), name);
        map.retry(retry.probe_delay(Duration::from_hours(1))).open()
    };
    let (a, b) = (open("a").await.unwrap(), open("b").await.unwrap());
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    a.insert("k", 1);
    b.insert("k", 2);
    a.flush().await.unwrap_err();
    b.flush().await.unwrap_err();
    other.execute_batch("ROLLBACK").unwrap();
    let limit = Duration::from_secs(20);
    a.close_within(limit).await.unwrap();
    let mut health = b.health();
    let is_well = health.wait_for(|health| health.is_healthy());
    drop(tokio::time::timeout(limit, is_well).await.unwrap().unwrap());
    assert_eq!(b.pending(), 0);
}
