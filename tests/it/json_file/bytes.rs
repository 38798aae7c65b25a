//! Values of bytes: base64 text in the file, and how edits by hand change them.

use persistify::{Encoding, ErrorKind, Expect, Otherwise};

use super::*;

const BYTES: &[u8] = b"\x00\xff bytes \"\\";
const BASE64: &str = "AP8gYnl0ZXMgIlw=";

/// Stores bytes in `seal`, and in `text` a JSON string that could be base64.
async fn two(folder: &TempDir) -> JsonFile {
    let files = open(folder).await;
    let bytes = Payload::binary(BYTES).with_schema(3);
    let seal = Change::put("seal", bytes, Some(time(5_000)));
    let batch = Writer::new().batch(vec![seal, put("text", "\"AAAA\"")]);
    files.commit(&batch).await.unwrap();
    files
}

fn value(record: &Record) -> (Encoding, &[u8]) {
    let value = record.value.as_ref().unwrap();
    (value.encoding, &value.bytes)
}

#[tokio::test]
async fn bytes_in_the_file_are_base64_text() {
    let folder = TempDir::new().unwrap();
    let files = two(&folder).await;
    files.close().await.unwrap();
    let text = fs::read_to_string(folder.path().join("stock.json")).unwrap();
    let expected = format!("{{\n  \"seal\": \"{BASE64}\",\n  \"text\": \"AAAA\"\n}}\n");
    assert_eq!(text, expected);
    let meta = fs::read_to_string(folder.path().join("stock.meta")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    assert_eq!(meta["entries"]["seal"][5], "base64");
    assert_eq!(meta["entries"]["text"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn bytes_after_a_crash_and_after_a_release_are_the_same() {
    let folder = TempDir::new().unwrap();
    let mut files = two(&folder).await;
    let before = load(&files).await.unwrap();
    for round in 0..4 {
        let found = load(&files).await.unwrap();
        assert_eq!(found, before, "round {round}");
        assert_eq!(value(&found["seal"]), (Encoding::Bytes, BYTES));
        assert_eq!(value(&found["text"]), (Encoding::Json, &b"\"AAAA\""[..]));
        if round == 1 {
            files.release(&stock()).await.unwrap();
        } else {
            drop(files);
            files = open(&folder).await;
        }
    }
}

#[tokio::test]
async fn edited_base64_text_changes_the_bytes() {
    let folder = TempDir::new().unwrap();
    two(&folder).await.close().await.unwrap();
    // First, the same text with an escape.
    let escaped = BASE64.replace('=', "\\u003d");
    write_by_hand(
        &folder,
        &format!("{{\"text\": \"AAAA\", \"seal\":\n\"{escaped}\"}}"),
    );
    let files = open(&folder).await;
    let found = load(&files).await.unwrap();
    assert_eq!(value(&found["seal"]), (Encoding::Bytes, BYTES));
    assert_eq!(found["seal"].expires_at, Some(time(5_000)));
    files.close().await.unwrap();

    write_by_hand(&folder, "{\"text\": \"AAAA\", \"seal\": \"aGk=\"}");
    let files = open(&folder).await;
    let found = load(&files).await.unwrap();
    assert_eq!(value(&found["seal"]), (Encoding::Bytes, &b"hi"[..]));
    assert_eq!(found["seal"].value.as_ref().unwrap().schema, 3);
    assert_eq!(found["seal"].expires_at, None);
    assert!(found["seal"].revision > found["text"].revision);
    // A commit and a restart keep the bytes.
    Writer::new().put(&files, "more", "1").await.unwrap();
    files.close().await.unwrap();
    let found = load(&open(&folder).await).await.unwrap();
    assert_eq!(value(&found["seal"]), (Encoding::Bytes, &b"hi"[..]));
}

#[tokio::test]
async fn an_edit_that_is_not_base64_is_json() {
    for edit in ["\"hello\"", "[1]", "\"AP8\"", "null"] {
        let folder = TempDir::new().unwrap();
        two(&folder).await.close().await.unwrap();
        let text = format!("{{\"seal\": {edit}, \"added\": \"{BASE64}\"}}");
        write_by_hand(&folder, &text);
        let files = open(&folder).await;
        let found = load(&files).await.unwrap();
        assert_eq!(value(&found["seal"]), (Encoding::Json, edit.as_bytes()));
        // A key without a row in the meta file is JSON, whatever it looks like.
        assert_eq!(value(&found["added"]).0, Encoding::Json);
        files.close().await.unwrap();

        // The value stays JSON, even if the next edit could be base64.
        write_by_hand(&folder, &format!("{{\"seal\": \"{BASE64}\"}}"));
        let found = load(&open(&folder).await).await.unwrap();
        assert_eq!(value(&found["seal"]).0, Encoding::Json, "{edit}");
    }
}

#[tokio::test]
async fn bytes_without_a_meta_file_are_json() {
    let folder = TempDir::new().unwrap();
    two(&folder).await.close().await.unwrap();
    fs::remove_file(folder.path().join("stock.meta")).unwrap();
    let found = texts(&open(&folder).await).await.unwrap();
    assert_eq!(found["seal"], format!("\"{BASE64}\""));
}

#[tokio::test]
async fn an_answer_with_bytes_is_remembered() {
    let folder = TempDir::new().unwrap();
    let mut files = two(&folder).await;
    let absent = put("seal", "1").expect(Expect::Absent, Otherwise::Skip);
    let mut writer = Writer::new();
    writer.pen.at = time(2_000);
    let batch = writer.batch(vec![absent]);
    let answer = files.commit(&batch).await.unwrap();
    let found = answer.skipped[0].found.as_ref().unwrap();
    assert_eq!(value(found), (Encoding::Bytes, BYTES));
    for _ in 0..2 {
        files.close().await.unwrap();
        files = open(&folder).await;
        assert_eq!(files.commit(&batch).await.unwrap(), answer);
    }
}

/// An earlier version of this crate wrote meta files of format 1 and journals of format 2,
/// whose frames are a subset.
#[tokio::test]
async fn files_of_an_earlier_format_open() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    writer.put(&files, "apple", "1").await.unwrap();
    files.release(&stock()).await.unwrap();
    rewrite_meta(&folder, |text| {
        text.replace("\"format\": 2", "\"format\": 1")
    });
    writer.put(&files, "pear", "2").await.unwrap();
    let before = load(&files).await.unwrap();
    drop(files);
    set_journal_format(&folder, 2);

    let files = open(&folder).await;
    assert_eq!(load(&files).await.unwrap(), before);
    // From now on, an earlier version refuses the files: it does not know their frames.
    let journal = fs::read(folder.path().join("stock.journal")).unwrap();
    assert_eq!(journal[8], 3);
    writer.put(&files, "plum", "3").await.unwrap();
    let before = load(&files).await.unwrap();
    drop(files);
    let files = open(&folder).await;
    assert_eq!(load(&files).await.unwrap(), before);
    files.close().await.unwrap();
    let meta = fs::read_to_string(folder.path().join("stock.meta")).unwrap();
    assert!(meta.contains("\"format\": 2"), "{meta}");
}

#[tokio::test]
async fn files_of_a_later_format_are_refused() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "1").await.unwrap();
    drop(files);
    let refused = async || {
        let error = load(&open(&folder).await).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        error.to_string()
    };
    set_journal_format(&folder, 4);
    assert!(refused().await.contains("stock.journal is of format 4"));
    set_journal_format(&folder, 3);
    open(&folder).await.release(&stock()).await.unwrap();
    let files = open(&folder).await;
    load(&files).await.unwrap();
    files.close().await.unwrap();
    rewrite_meta(&folder, |text| {
        text.replace("\"format\": 2", "\"format\": 3")
    });
    assert!(refused().await.contains("stock.meta is of format 3"));
}

/// Sets the format number of the journal and updates its checksum.
fn set_journal_format(folder: &TempDir, format: u8) {
    let path = folder.path().join("stock.journal");
    let mut bytes = fs::read(&path).unwrap();
    let header = bytes.windows(6).position(|w| w == b"\xffPFRAM").unwrap();
    bytes[8] = format;
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..header - 8]);
    bytes[header - 8..header].copy_from_slice(&checksum.to_le_bytes());
    fs::write(path, bytes).unwrap();
}
