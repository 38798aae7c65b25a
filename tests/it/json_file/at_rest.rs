//! What lies in the folder while a map is closed, and what opens again.

use super::*;

#[tokio::test]
async fn what_was_committed_is_there_after_a_crash_and_after_a_release() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let mut writer = Writer::new();
    writer.put(&files, "apple", "3").await.unwrap();
    writer.put(&files, "pear", "[1, 2]").await.unwrap();
    writer.delete(&files, "apple").await.unwrap();
    let before = load(&files).await.unwrap();
    assert_eq!(texts(&files).await.unwrap(), pairs([("pear", "[1, 2]")]));
    assert_eq!(names(folder.path()), ["stock.journal"]);
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
async fn the_file_is_a_flat_object_of_plain_values_sorted_an_entry_a_line() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let changes = vec![
        put("pear", "{\n  \"sweet\": \"a\\n b\",\n  \"n\": [1,\n 2]\n}"),
        put("apple", "1.0000000000000000000001"),
        put("", "18446744073709551617"),
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
        "  \"pear\": {\"sweet\":\"a\\n b\",\"n\":[1,2]}",
        "}",
        "",
    ];
    assert_eq!(text.split('\n').collect::<Vec<_>>(), expected);
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["pear"]["sweet"], "a\n b");
    assert_eq!(read.as_object().unwrap().len(), 4);
}
