//! The writers that a file remembers.

use persistify::{Change, ErrorKind, Expect, Otherwise, Payload, Provider, Revision};

use super::*;

#[tokio::test]
async fn a_repeat_is_answered_as_before_and_a_late_batch_changes_nothing() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    pen.put(&sqlite, &map, "there", r#""now""#).await;
    let late = pen.changes(&map, vec![put("late", "1")]);
    let skip = |change: Change| change.expect(Expect::Absent, Otherwise::Skip);
    let bytes = Change::put("bytes", Payload::binary(vec![0xff, 0x00]), None);
    pen.write(&sqlite, &map, vec![bytes]).await.unwrap();
    let none = put("none", "1").expect(Expect::Present, Otherwise::Skip);
    let changes = vec![
        put("new", "1"),
        skip(put("there", "2")),
        none,
        skip(put("bytes", "2")),
    ];
    let batch = pen.changes(&map, changes);
    let answer = sqlite.commit(&batch).await.unwrap();
    assert_eq!(answer.skipped.len(), 3);
    assert_eq!(answer.skipped[0].found, one(&sqlite, &map, "there").await);
    assert_eq!(answer.skipped[1].found, None);
    let before = all(&sqlite, &map).await;

    assert_eq!(sqlite.commit(&batch).await.unwrap(), answer);
    sqlite.close().await.unwrap();
    let sqlite = place.open().await;
    assert_eq!(sqlite.commit(&batch).await.unwrap(), answer);
    let superseded = error(sqlite.commit(&late).await);
    assert_eq!(superseded.kind(), ErrorKind::Superseded);
    assert!(!superseded.may_have_applied());
    assert_eq!(all(&sqlite, &map).await, before);

    // The answer to the next batch does not include the skipped changes of this one.
    let batch = pen.changes(&map, vec![put("new", "2")]);
    let answer = sqlite.commit(&batch).await.unwrap();
    assert!(answer.skipped.is_empty());
    assert_eq!(sqlite.commit(&batch).await.unwrap(), answer);
}

#[tokio::test]
async fn nothing_is_remembered_of_a_batch_that_failed() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let change = put("k", "1").expect(Expect::Present, Otherwise::Fail);
    let batch = pen.changes(&map, vec![change]);
    assert_eq!(
        error(sqlite.commit(&batch).await).kind(),
        ErrorKind::Conflict
    );
    Pen::new().put(&sqlite, &map, "k", "0").await;
    sqlite.commit(&batch).await.unwrap();
    assert_eq!(text_of(&sqlite, &map, "k").await.unwrap(), "1");
}

#[tokio::test]
async fn revisions_exceed_what_the_writer_has_seen() {
    let place = Place::new();
    let (map, mut pen) = (name("m"), Pen::new());
    let sqlite = place.open().await;
    let first = pen.put(&sqlite, &map, "k", "1").await;
    let mut batch = pen.changes(&map, vec![put("k", "2")]);
    batch.after = Revision::new(first.get() + 1_000_000);
    let second = sqlite.commit(&batch).await.unwrap().revision.unwrap();
    assert!(second > batch.after);
    assert!(pen.put(&sqlite, &map, "k", "3").await > second);

    // SQLite cannot store this integer: the commit fails, and nothing is written.
    let mut batch = pen.changes(&map, vec![put("k", "4")]);
    batch.after = Revision::new(u64::MAX);
    assert_eq!(
        error(sqlite.commit(&batch).await).kind(),
        ErrorKind::Invalid
    );
    assert_eq!(text_of(&sqlite, &map, "k").await.unwrap(), "3");
}

#[tokio::test]
async fn writers_are_forgotten_after_a_week() {
    let place = Place::new();
    let (map, mut old, mut new) = (name("m"), Pen::new(), Pen::new());
    let sqlite = place.open().await;
    old.put(&sqlite, &map, "k", "1").await;
    new.put(&sqlite, &map, "k", "2").await;
    let other = place.other();
    let six_days = 6 * 24 * 3_600_000_i64;
    let age = "UPDATE persistify_writers SET at = at - ?2 WHERE writer = ?1";
    let count = || {
        let sql = "SELECT count(*) FROM persistify_writers";
        let count = other.query_row(sql, [], |row| row.get::<_, i64>(0));
        count.unwrap()
    };
    other.execute(age, (old.id.to_string(), six_days)).unwrap();
    sqlite.release(&map).await.unwrap();
    assert_eq!(count(), 2);
    other.execute(age, (old.id.to_string(), six_days)).unwrap();
    sqlite.release(&map).await.unwrap();
    assert_eq!(count(), 1);
    sqlite.close().await.unwrap();

    // The first commit after an open also forgets old writers.
    other
        .execute(age, (new.id.to_string(), 2 * six_days))
        .unwrap();
    let sqlite = place.open().await;
    Pen::new().put(&sqlite, &map, "k", "3").await;
    assert_eq!(count(), 1);
}
