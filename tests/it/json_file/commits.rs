//! The answers to commits, and partial loads.

use std::sync::Arc;

use futures_util::FutureExt;
use persistify::{ErrorKind, Expect, Otherwise};

use super::*;

#[tokio::test]
async fn writers_after_a_crash_and_after_a_compaction_are_fenced() {
    let folder = TempDir::new().unwrap();
    let mut files = open(&folder).await;
    let mut writer = Writer::new();
    let first = writer.batch(vec![put("apple", "1")]);
    let absent = put("apple", "2").expect(Expect::Absent, Otherwise::Skip);
    let second = writer.batch(vec![absent, put("pear", "3")]);
    files.commit(&first).await.unwrap();
    let answer = files.commit(&second).await.unwrap();
    assert_eq!(answer.skipped.len(), 1);
    let found = answer.skipped[0].found.as_ref().unwrap();
    assert_eq!(text(found), "1");
    assert_eq!(answer.skipped[0].map, stock());
    let state = load(&files).await.unwrap();
    for round in 0..4 {
        assert_eq!(
            files.commit(&second).await.unwrap(),
            answer,
            "round {round}"
        );
        let error = files.commit(&first).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Superseded);
        assert_eq!(load(&files).await.unwrap(), state);
        if round == 1 {
            files.release(&stock()).await.unwrap();
        } else {
            drop(files);
            files = open(&folder).await;
        }
    }
}

/// Each opening of a map adds a writer. The meta file must not grow with every opening.
#[tokio::test]
async fn writers_of_earlier_openings_are_forgotten_after_days() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let (mut old, mut new) = (Writer::new(), Writer::new());
    old.put(&files, "apple", "1").await.unwrap();
    files.close().await.unwrap();
    // Writers that committed since the folder was opened are not forgotten.
    let files = open(&folder).await;
    let meta = folder.path().join("stock.meta");
    let text = fs::read_to_string(&meta).unwrap();
    let (before, rest) = text
        .split_once(&format!(
            "\"{}\": {{\n\"sequence\": 1,\n\"at\": ",
            old.pen.id
        ))
        .unwrap();
    let (_, after) = rest.split_once(',').unwrap();
    let after = after.split_once("\"checksum\"").unwrap().0;
    for (age, is_known) in [(1, true), (7, false)] {
        let then = SystemTime::now() - Duration::from_hours(24 * age);
        let millis = then
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_millis();
        let aged = format!(
            "{before}\"{}\": {{\n\"sequence\": 1,\n\"at\": {millis},{after}",
            old.pen.id
        );
        let checksum = xxhash_rust::xxh3::xxh3_128(aged.as_bytes());
        let aged = format!("{aged}\"checksum\": \"{checksum:032x}\"\n}}\n");
        let json = fs::read(folder.path().join("stock.json")).unwrap();
        fs::write(&meta, aged).unwrap();
        new.put(&files, "apple", "1").await.unwrap();
        files.release(&stock()).await.unwrap();
        let text = fs::read_to_string(&meta).unwrap();
        assert!(text.contains(&new.pen.id.to_string()));
        assert_eq!(
            text.contains(&old.pen.id.to_string()),
            is_known,
            "{age} days"
        );
        // The value is unchanged, so the file is, too.
        assert_eq!(fs::read(folder.path().join("stock.json")).unwrap(), json);
    }
}

#[tokio::test]
async fn conditions_on_stored_entries_are_checked() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    let dated = Change::put("late", Payload::json("1"), Some(time(500)));
    let revision = files
        .commit(&writer.batch(vec![put("apple", "1"), dated]))
        .await;
    let revision = revision.unwrap().revision.unwrap();
    let older = Revision::new(revision.get() - 1);
    for is_compacted in [false, true] {
        let before = load(&files).await.unwrap();
        for (key, expect, holds) in [
            ("apple", Expect::Any, true),
            ("apple", Expect::Present, true),
            ("apple", Expect::Absent, false),
            ("apple", Expect::At(revision), true),
            ("apple", Expect::At(older), false),
            ("late", Expect::Absent, true),
            ("late", Expect::Present, false),
            ("none", Expect::At(Revision::ZERO), false),
            ("none", Expect::Present, false),
        ] {
            let change = Change::touch("none", None).expect(Expect::Any, Otherwise::Fail);
            let judged = Change::delete(key).expect(expect, Otherwise::Fail);
            let never = put("apple", "0").expect(Expect::Absent, Otherwise::Fail);
            // `never` fails, so nothing is written even if `judged` holds.
            let changes = if holds {
                vec![judged, never]
            } else {
                vec![change, judged]
            };
            let error = files.commit(&writer.batch(changes)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            let key = if holds { "apple" } else { key };
            assert_eq!(error.keys(), [Arc::from(key)], "{expect:?}");
            assert_eq!(error.found(), before.get(key), "{expect:?}");
            assert_eq!(load(&files).await.unwrap(), before);
        }
        if !is_compacted {
            files.release(&stock()).await.unwrap();
        }
    }
    // After a clear, the key is absent.
    let absent = put("apple", "9").expect(Expect::Absent, Otherwise::Fail);
    let mut batch = writer.batch(vec![absent]);
    batch.maps = [batch.maps[0].clone().clearing(true)].into();
    files.commit(&batch).await.unwrap();
    assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "9")]));
}

#[tokio::test]
async fn a_batch_of_several_maps_is_unsupported_and_leaves_no_files() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    assert!(!files.capabilities().several_maps);
    let parts = ["a", "b"].map(|map| MapBatch::new(name(map), vec![put("apple", "1")]));
    let batch = Pen::new().batch(parts.into());
    let error = files.commit(&batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!error.may_have_applied());
    assert!(names(folder.path()).is_empty());
    assert!(files.maps().await.unwrap().is_empty());
}

#[tokio::test]
async fn values_that_are_not_json_are_refused_by_key() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let bad = [
        "",
        "NaN",
        "1 2",
        "{\"a\":}",
        "\"a\nb\"",
        "01",
        "nul",
        "{\"a\":1}}",
        "'a'",
    ];
    let mut changes: Vec<_> = bad
        .iter()
        .map(|text| put(&format!("bad {text}"), text))
        .collect();
    changes.push(Change::put("bytes", Payload::json(&b"\"\xff\""[..]), None));
    let keys: Vec<_> = changes.iter().map(|change| change.key.clone()).collect();
    changes.insert(3, put("good", "1"));
    let mut writer = Writer::new();
    let error = files.commit(&writer.batch(changes)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.keys(), keys);
    assert!(names(folder.path()).is_empty());
    writer.put(&files, "good", " 1\n").await.unwrap();
    assert_eq!(texts(&files).await.unwrap(), pairs([("good", "1")]));
}

#[tokio::test]
async fn partial_loads_read_journal_and_snapshot() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    let many = (0..2_100)
        .map(|n| put(&format!("{n:04}"), &n.to_string()))
        .collect();
    let old = files
        .commit(&writer.batch(many))
        .await
        .unwrap()
        .revision
        .unwrap();
    files.release(&stock()).await.unwrap();
    let few = (0..2_100).step_by(2).map(|n| put(&format!("{n:04}"), "0"));
    files.commit(&writer.batch(few.collect())).await.unwrap();

    let select = async |wanted: Wanted| {
        let records = crate::support::records::load(&files, &stock(), wanted)
            .await
            .unwrap();
        let pairs = records.iter().map(|r| format!("{}={}", r.key, text(r)));
        pairs.collect::<Vec<_>>()
    };
    let page = select(Wanted::page(Some("0006".into()), 3)).await;
    assert_eq!(page, ["0007=7", "0008=0", "0009=9"]);
    assert_eq!(select(Wanted::page(None, 2_050)).await.len(), 2_050);
    assert_eq!(select(Wanted::page(Some("2099".into()), 5)).await.len(), 0);
    assert_eq!(select(Wanted::page(None, 0)).await.len(), 0);
    let keys = ["0008", "none", "0007", "0008"].map(Arc::from);
    assert_eq!(
        select(Wanted::Keys(keys.into())).await,
        ["0007=7", "0008=0"]
    );
    let missing: Vec<_> = (0..3_000).map(|n| Arc::from(format!("{n:04}x"))).collect();
    let keys = [missing, vec!["2099".into()]].concat();
    assert_eq!(select(Wanted::Keys(keys.into())).await, ["2099=2099"]);
    assert_eq!(select(Wanted::changed(old)).await.len(), 1_050);
    assert_eq!(select(Wanted::All).await.len(), 2_100);
}

/// A dropped commit still runs, and the identical batch gets its result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_commit_is_applied_whole_and_once() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    let mut last = Revision::ZERO;
    for n in 0..30 {
        let batch = writer.batch(vec![put("apple", &n.to_string())]);
        let first = files.commit(&batch).now_or_never();
        let revision = match first {
            Some(answer) => answer.unwrap().revision.unwrap(),
            None => files.commit(&batch).await.unwrap().revision.unwrap(),
        };
        assert!(revision > last);
        last = revision;
        let found = load(&files).await.unwrap();
        assert_eq!(found["apple"].revision, revision);
        assert_eq!(text(&found["apple"]), n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_of_one_map_share_it() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let tasks = (0..4).map(|task| {
        let files = files.clone();
        tokio::spawn(async move {
            let mut writer = Writer::new();
            for n in 0..25 {
                let key = format!("{task} {n}");
                writer.put(&files, &key, &n.to_string()).await.unwrap();
                if n % 10 == task {
                    files.release(&stock()).await.unwrap();
                }
            }
        })
    });
    futures_util::future::try_join_all(tasks).await.unwrap();
    let found = load(&files).await.unwrap();
    assert_eq!(found.len(), 100);
    let mut revisions: Vec<_> = found.values().map(|record| record.revision).collect();
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), 100);
    drop(files);
    assert_eq!(load(&open(&folder).await).await.unwrap(), found);
}
