//! Truncated and damaged journals.

use persistify::ErrorKind;

use super::{shaky_disk::ShakyDisk, *};

/// A folder with a journal, the bytes of the journal, the ends of its frames, and the state
/// after each of them.
struct Journal {
    folder: TempDir,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    states: Vec<BTreeMap<String, Record>>,
}

impl Journal {
    /// Creates the journal beside a snapshot with a meta file.
    async fn new() -> Self {
        let folder = quick_folder();
        let files = open(&folder).await;
        let mut writer = Writer::new();
        writer.put(&files, "old", "0").await.unwrap();
        files.release(&stock()).await.unwrap();
        let mut journal = Self {
            states: vec![load(&files).await.unwrap()],
            ends: Vec::new(),
            bytes: Vec::new(),
            folder,
        };
        let batches = [
            writer.batch(vec![put("apple", "1")]),
            writer.batch(vec![put("apple", "\"x\""), Change::delete("old")]),
            writer.batch(vec![put("pear", "{}")]),
        ];
        for batch in batches {
            files.commit(&batch).await.unwrap();
            journal.states.push(load(&files).await.unwrap());
            journal.ends.push(journal.read().len());
        }
        journal.bytes = journal.read();
        let first = journal.bytes.windows(6).position(|w| w == b"\xffPFRAM");
        journal.ends.insert(0, first.unwrap());
        journal
    }

    fn read(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("stock.journal")).unwrap()
    }

    fn write(&self, bytes: &[u8]) {
        for name in names(self.folder.path()) {
            if name.contains("torn") {
                fs::remove_file(self.folder.path().join(name)).unwrap();
            }
        }
        fs::write(self.folder.path().join("stock.journal"), bytes).unwrap();
    }

    /// Opens the folder on a disk that does not sync, for speed.
    async fn open(&self) -> JsonFile {
        let disk = ShakyDisk::default();
        let builder = JsonFile::builder(self.folder.path()).disk(disk.shared());
        builder.open().await.unwrap()
    }

    fn torn(&self, number: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(format!("stock.torn{number}"))).unwrap()
    }
}

/// A journal is created with a complete header. An emptied journal, or one truncated within its
/// header, was mistaken for one that never had frames, and was removed: its acknowledged
/// batches were lost without an error.
#[tokio::test]
async fn a_journal_cut_at_any_byte_keeps_the_complete_batches() {
    let journal = Journal::new().await;
    for length in 0..journal.bytes.len() {
        journal.write(&journal.bytes[..length]);
        let files = journal.open().await;
        if length < journal.ends[0] {
            let error = load(&files).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{length}: {error:?}");
            assert!(error.to_string().contains("header"), "{error}");
            assert_eq!(journal.read(), &journal.bytes[..length]);
            continue;
        }
        let whole = journal.ends.iter().rposition(|end| *end <= length);
        let found = load(&files).await.unwrap();
        assert_eq!(found, journal.states[whole.unwrap_or(0)], "{length}");
        // The torn rest is moved from the journal to a file of its own.
        let end = whole.map_or(0, |n| journal.ends[n]);
        if end < length {
            assert_eq!(journal.torn(""), &journal.bytes[end..length]);
        } else {
            assert!(!names(journal.folder.path()).contains(&"stock.torn".to_owned()));
        }
        let after = names(journal.folder.path());
        drop(files);
        let files = journal.open().await;
        assert_eq!(load(&files).await.unwrap(), found);
        assert_eq!(names(journal.folder.path()), after);
    }
}

#[tokio::test]
async fn a_bit_flipped_before_the_last_batch_is_corrupt_and_nothing_is_changed() {
    let journal = Journal::new().await;
    let last = journal.ends[2];
    let files = journal.open().await;
    for bit in 0..last * 8 {
        let mut bytes = journal.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        journal.write(&bytes);
        let error = load(&files).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}: {error:?}");
        let message = error.to_string();
        assert!(message.contains("stock.journal"), "{message}");
        let frame = journal.ends.iter().rposition(|end| *end <= bit / 8);
        let at = frame.map_or(0, |n| journal.ends[n]);
        assert!(
            message.contains(&format!("at byte {at},")),
            "{bit}: {message}"
        );
        assert_eq!(journal.read(), bytes);
    }
    assert_eq!(
        names(journal.folder.path()),
        ["stock.journal", "stock.json", "stock.meta"]
    );
}

#[tokio::test]
async fn a_bit_flipped_in_the_last_batch_makes_it_torn() {
    let journal = Journal::new().await;
    let last = journal.ends[2];
    for bit in last * 8..journal.bytes.len() * 8 {
        let mut bytes = journal.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        journal.write(&bytes);
        let files = journal.open().await;
        assert_eq!(load(&files).await.unwrap(), journal.states[2], "bit {bit}");
        assert_eq!(journal.torn(""), &bytes[last..]);
        assert_eq!(journal.read(), &journal.bytes[..last]);
    }
}

#[tokio::test]
async fn a_missing_batch_is_corrupt() {
    let journal = Journal::new().await;
    let files = journal.open().await;
    let ends = &journal.ends;
    for cut in 0..ends.len() - 2 {
        let mut bytes = journal.bytes.clone();
        bytes.drain(ends[cut]..ends[cut + 1]);
        journal.write(&bytes);
        let error = load(&files).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{cut}: {error:?}");
    }
    // A repeated batch is damage, too.
    let mut bytes = journal.bytes.clone();
    bytes.extend_from_within(ends[1]..ends[2]);
    journal.write(&bytes);
    assert_eq!(load(&files).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn torn_batches_are_never_overwritten() {
    let journal = Journal::new().await;
    for (n, ending) in ["", ".1", ".2"].into_iter().enumerate() {
        let bytes = &journal.bytes[..journal.bytes.len() - 1 - n];
        fs::write(journal.folder.path().join("stock.journal"), bytes).unwrap();
        load(&journal.open().await).await.unwrap();
        assert_eq!(journal.torn(ending), &bytes[journal.ends[2]..]);
    }
    assert_eq!(journal.torn("").len(), journal.torn(".1").len() + 1);
}

#[tokio::test]
async fn a_journal_of_a_later_version_is_unsupported_and_unchanged() {
    let journal = Journal::new().await;
    let mut bytes = journal.bytes[..journal.ends[0]].to_vec();
    bytes[8] = u8::MAX;
    let checked = bytes.len() - 8;
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..checked]);
    bytes[checked..].copy_from_slice(&checksum.to_le_bytes());
    journal.write(&bytes);
    let error = load(&journal.open().await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert_eq!(journal.read(), bytes);
}

#[tokio::test]
async fn a_journal_that_grows_under_an_open_map_is_corrupt() {
    let journal = Journal::new().await;
    let files = journal.open().await;
    load(&files).await.unwrap();
    let bytes = [journal.read(), b"more".to_vec()].concat();
    journal.write(&bytes);
    let error = Writer::new().put(&files, "apple", "2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert_eq!(journal.read(), bytes);
}
