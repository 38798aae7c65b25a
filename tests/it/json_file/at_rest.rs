//! The files of a closed map, and reopening them.

use futures_util::StreamExt;
use std::collections::BTreeSet;

use persistify::ErrorKind;

use super::*;

#[tokio::test]
async fn commits_after_a_crash_and_after_a_release_are_there() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    writer.put(&files, "apple", "3").await.unwrap();
    writer.put(&files, "pear", "[1, 2]").await.unwrap();
    writer.delete(&files, "apple").await.unwrap();
    let before = load(&files).await.unwrap();
    assert_eq!(texts(&files).await.unwrap(), pairs([("pear", "[1, 2]")]));
    assert_eq!(names(folder.path()), ["stock.journal", "stock.meta"]);
    drop(files);

    let files = open(&folder).await;
    assert_eq!(load(&files).await.unwrap(), before);
    files.release(&stock()).await.unwrap();
    assert_eq!(names(folder.path()), ["stock.json", "stock.meta"]);
    assert_eq!(load(&files).await.unwrap(), before);
    files.close().await.unwrap();

    let files = open(&folder).await;
    assert_eq!(load(&files).await.unwrap(), before);
}

#[tokio::test]
async fn the_file_at_rest_is_a_flat_sorted_object_with_an_entry_per_line() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let changes = vec![
        put("pear", "{\n  \"sweet\": \"a\\n b\",\n  \"n\": [1,\n 2]\n}"),
        put("apple", "1.0000000000000000000001"),
        put("", "18446744073709551617"),
        put("escaped", "[\n\"\\\" \\\\\" ,\r\n\t\"  \" ]"),
        put("a \"quoted\"\u{1}🍐", "\"x\""),
    ];
    files.commit(&Writer::new().batch(changes)).await.unwrap();
    files.release(&stock()).await.unwrap();

    let text = fs::read_to_string(folder.path().join("stock.json")).unwrap();
    let expected = [
        "{",
        "  \"\": 18446744073709551617,",
        "  \"a \\\"quoted\\\"\\u0001🍐\": \"x\",",
        "  \"apple\": 1.0000000000000000000001,",
        "  \"escaped\": [\"\\\" \\\\\",\"  \"],",
        "  \"pear\": {\"sweet\":\"a\\n b\",\"n\":[1,2]}",
        "}",
        "",
    ];
    assert_eq!(text.split('\n').collect::<Vec<_>>(), expected);
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["pear"]["sweet"], "a\n b");
    assert_eq!(read.as_object().unwrap().len(), 5);
}

#[tokio::test]
async fn a_file_of_another_program_opens_and_is_unchanged() {
    let folder = TempDir::new().unwrap();
    let foreign = "{\"pear\" : 2,\n\n \"apple\":{ \"a\" :\n 1 } , \"\\u0041\":\"\\u00e9\"}";
    write_by_hand(&folder, foreign);
    let files = open(&folder).await;
    let found = load(&files).await.unwrap();
    let revisions: BTreeSet<_> = found.values().map(|r| r.revision).collect();
    assert_eq!(revisions.len(), 1);
    assert!(*revisions.first().unwrap() > Revision::ZERO);
    let expected = pairs([("pear", "2"), ("apple", "{\"a\":1}"), ("A", "\"\\u00e9\"")]);
    assert_eq!(texts(&files).await.unwrap(), expected);
    files.release(&stock()).await.unwrap();
    files.close().await.unwrap();
    assert_eq!(names(folder.path()), ["stock.json"]);
    assert_eq!(
        fs::read_to_string(folder.path().join("stock.json")).unwrap(),
        foreign
    );

    let files = open(&folder).await;
    assert_eq!(load(&files).await.unwrap(), found);
    let answer = Writer::new().put(&files, "plum", "3").await.unwrap();
    assert!(answer.revision > revisions.first().copied());
    // After a crash and a compaction, other entries are unchanged.
    drop(files);
    let files = open(&folder).await;
    let mut now = load(&files).await.unwrap();
    files.release(&stock()).await.unwrap();
    assert_eq!(load(&files).await.unwrap(), now);
    assert_eq!(text(&now.remove("plum").unwrap()), "3");
    assert_eq!(now, found);
    let text = fs::read_to_string(folder.path().join("stock.json")).unwrap();
    assert_eq!(
        text,
        "{\n  \"A\": \"\\u00e9\",\n  \"apple\": {\"a\":1},\n  \"pear\": 2,\n  \"plum\": 3\n}\n"
    );
}

/// A byte order mark, as some editors write it, made the file invalid JSON.
#[tokio::test]
async fn a_file_with_a_byte_order_mark_opens() {
    let folder = TempDir::new().unwrap();
    write_by_hand(
        &folder,
        "\u{feff}{\"apple\": 1,\r\n\"pear\": [2,\r\n3]}\r\n",
    );
    let files = open(&folder).await;
    let expected = pairs([("apple", "1"), ("pear", "[2,3]")]);
    assert_eq!(texts(&files).await.unwrap(), expected);
    Writer::new().put(&files, "plum", "4").await.unwrap();
    files.release(&stock()).await.unwrap();
    let text = fs::read_to_string(folder.path().join("stock.json")).unwrap();
    let expected = "{\n  \"apple\": 1,\n  \"pear\": [2,3],\n  \"plum\": 4\n}\n";
    assert_eq!(text, expected);
}

/// The link was replaced by a file. Programs that read its target missed later saves, and the
/// map missed their writes.
#[cfg(unix)]
#[tokio::test]
async fn a_symbolic_link_stays_and_its_target_is_replaced() {
    let (folder, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let real = elsewhere.path().join("real.json");
    let link = folder.path().join("stock.json");
    fs::write(&real, "{\"apple\": 1}").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let files = open(&folder).await;
    Writer::new().put(&files, "pear", "2").await.unwrap();
    files.release(&stock()).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let text = fs::read_to_string(&real).unwrap();
    assert_eq!(text, "{\n  \"apple\": 1,\n  \"pear\": 2\n}\n");
    assert_eq!(names(elsewhere.path()), ["real.json"]);
    fs::write(&real, "{\"apple\": 3}").unwrap();
    assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "3")]));
}

#[tokio::test]
async fn a_file_that_is_not_a_flat_object_is_corrupt_and_unchanged() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let cases = [
        ("{\"a\": 1,\n \"b\": x}", "line 2, column"),
        ("[1, 2]", "line 1, column"),
        ("", "line 1, column 0"),
        ("{\"a\": 1} 2", "line 1, column 10"),
        ("{\"a\": 1, \"b\": 2, \"a\": 3}", "(key \"a\")"),
    ];
    for (text, place) in cases {
        write_by_hand(&folder, text);
        let error = load(&files).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{text}");
        let message = error.to_string();
        assert!(message.contains(place), "{message}");
        assert!(message.contains("stock.json"), "{message}");
        assert_eq!(error.map(), Some("stock"));
        let error = Writer::new().put(&files, "c", "4").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(names(folder.path()), ["stock.json"]);
        assert_eq!(
            fs::read_to_string(folder.path().join("stock.json")).unwrap(),
            text
        );
    }
    // Once repaired, the file opens.
    write_by_hand(&folder, "{\"a\": 1}");
    assert_eq!(texts(&files).await.unwrap(), pairs([("a", "1")]));
}

#[tokio::test]
async fn a_meta_file_with_any_changed_byte_is_corrupt() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "1").await.unwrap();
    files.release(&stock()).await.unwrap();
    let meta = folder.path().join("stock.meta");
    let whole = fs::read(&meta).unwrap();
    serde_json::from_slice::<serde_json::Value>(&whole).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&meta, &bytes).unwrap();
        let error = load(&files).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{at}: {error:?}");
        fs::write(&meta, &whole[..at]).unwrap();
        load(&files).await.unwrap_err();
    }
    fs::write(&meta, &whole).unwrap();
    load(&files).await.unwrap();
}

#[tokio::test]
async fn a_map_with_capitals_beside_a_file_of_its_name_is_invalid_and_the_error_names_the_file() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("Config.json"), "{\"a\":1}").unwrap();
    let config = name("Config");
    let files = open(&folder).await;
    let error = files.load(&config, Wanted::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let message = error.to_string();
    assert!(message.contains("%43onfig.json"), "{message}");
    assert!(
        message.contains(".file(\"Config\", \"Config.json\")"),
        "{message}"
    );
    files.close().await.unwrap();

    let builder = JsonFile::builder(folder.path());
    let files = builder.file("Config", "Config.json").open().await.unwrap();
    Pen::new().put(&files, &config, "b", "2").await;
    let expected = ["Config.journal", "Config.json", "Config.meta"];
    assert_eq!(names(folder.path()), expected);
    assert_eq!(files.maps().await.unwrap(), [config]);
    files.close().await.unwrap();
    assert_eq!(names(folder.path()), ["Config.json", "Config.meta"]);
    let text = fs::read_to_string(folder.path().join("Config.json")).unwrap();
    assert_eq!(text, "{\n  \"a\": 1,\n  \"b\": 2\n}\n");
}

#[tokio::test]
async fn a_file_for_two_maps_is_invalid() {
    let folder = TempDir::new().unwrap();
    let builder = || JsonFile::builder(folder.path());
    for builder in [
        builder().file("a", "x.json").file("b", "X.json"),
        builder().file("a", "x.json").file("a", "y.json"),
        builder().file("a", "../x.json"),
        builder().file("a", ".json"),
        builder().file("a", "x.meta"),
        builder().file("a", format!("{}.json", "x".repeat(245))),
        builder().file("a\n", "x.json"),
        builder().max_journal(1),
    ] {
        let error = builder.open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let files = builder().file("other", "Stock.json").open().await.unwrap();
    assert_eq!(load(&files).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn maps_with_any_names_are_listed() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let long = "Ä".repeat(120);
    let names = ["stock", "Stock", "a.b", "con", "käse 🧀", &long];
    let mut maps: Vec<_> = names.map(name).into();
    maps.push(maps[0].nested("unreadable").unwrap());
    maps.sort();
    for (n, map) in maps.iter().enumerate() {
        Pen::new().put(&files, map, "n", &n.to_string()).await;
        if n % 2 == 0 {
            files.release(map).await.unwrap();
        }
    }
    fs::write(folder.path().join("package.lock.json"), "{}").unwrap();
    fs::write(folder.path().join("Readme.json"), "{}").unwrap();
    assert_eq!(files.maps().await.unwrap(), maps);
    drop(files);
    let files = open(&folder).await;
    assert_eq!(files.maps().await.unwrap(), maps);
    for (n, map) in maps.iter().enumerate() {
        let records = crate::support::records::load(&files, map, Wanted::All)
            .await
            .unwrap();
        assert_eq!(text(&records[0]), n.to_string());
    }
}

/// Long names are shortened to a digest and might collide. The files therefore contain the name
/// of their map.
#[tokio::test]
async fn files_of_another_map_are_refused() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "1").await.unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::copy(path("stock.journal"), path("other.journal")).unwrap();
    let other = name("other");
    let error = files.load(&other, Wanted::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    fs::remove_file(path("other.journal")).unwrap();
    files.release(&stock()).await.unwrap();
    fs::copy(path("stock.meta"), path("other.meta")).unwrap();
    let error = files.load(&other, Wanted::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("\"stock\""), "{error}");
}

#[tokio::test]
async fn big_values_and_many_entries_load() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    let big = format!("\"{}\"", "x".repeat(300_000));
    let changes = (0..2_500).map(|n| put(&format!("key {n}"), &n.to_string()));
    writer.put(&files, "big", &big).await.unwrap();
    files
        .commit(&writer.batch(changes.collect()))
        .await
        .unwrap();
    for _ in 0..2 {
        let found = texts(&files).await.unwrap();
        assert_eq!(found.len(), 2_501);
        assert_eq!(found["big"], big);
        assert_eq!(found["key 1234"], "1234");
        files.release(&stock()).await.unwrap();
    }
    let map = stock();
    let load = files.load(&map, Wanted::All).await.unwrap();
    assert_eq!(load.total_hint, Some(2_501));
}

/// Each load and each compaction held a thousand values in memory at once, regardless of their
/// size.
#[tokio::test]
async fn large_values_load_in_smaller_pages() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    let big = format!("\"{}\"", "x".repeat(300_000));
    let changes = (10..30).map(|n| put(&n.to_string(), &big)).collect();
    files.commit(&writer.batch(changes)).await.unwrap();
    let map = stock();
    let pages = async |wanted| {
        let load = files.load(&map, wanted).await.unwrap();
        let pages: Vec<_> = load.pages.map(|page| page.unwrap().len()).collect().await;
        assert!(pages.iter().all(|page| *page <= 4), "{pages:?}");
        pages.iter().sum::<usize>()
    };
    for _ in 0..2 {
        assert_eq!(pages(Wanted::All).await, 20);
        assert_eq!(pages(Wanted::page(Some("13".into()), 7)).await, 7);
        let keys = (25..40).map(|n| n.to_string().into()).collect();
        assert_eq!(pages(Wanted::Keys(keys)).await, 5);
        assert_eq!(pages(Wanted::changed(Revision::ZERO)).await, 20);
        files.release(&map).await.unwrap();
    }
    assert!(
        texts(&files)
            .await
            .unwrap()
            .values()
            .all(|text| *text == big)
    );
}

#[tokio::test]
async fn times_before_1970_and_far_away_are_kept_to_the_millisecond() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let nanos = Duration::from_micros(1_500);
    let times = [
        SystemTime::UNIX_EPOCH - nanos,
        SystemTime::UNIX_EPOCH + nanos,
        SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50),
    ];
    let changes = times
        .iter()
        .enumerate()
        .map(|(n, end)| Change::put(n.to_string(), Payload::json("1"), Some(*end)));
    files
        .commit(&Writer::new().batch(changes.collect()))
        .await
        .unwrap();
    for _ in 0..2 {
        let found = load(&files).await.unwrap();
        let half = Duration::from_micros(500);
        // Rounded down: an entry never expires late.
        assert_eq!(found["0"].expires_at, Some(times[0] - half));
        assert_eq!(found["1"].expires_at, Some(times[1] - half));
        let far = found["2"].expires_at.unwrap();
        assert!(far > SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 49));
        files.release(&stock()).await.unwrap();
    }
}
