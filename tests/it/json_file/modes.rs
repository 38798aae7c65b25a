//! The modes and owners of new files.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    process::Command,
};

use persistify::ErrorKind;

use super::*;

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The modes of all files in the folder.
fn modes(folder: &Path) -> BTreeMap<String, u32> {
    let all = names(folder).into_iter().chain([".persistify.lock".into()]);
    all.map(|name| (name.clone(), mode(folder.join(name))))
        .collect()
}

fn all<const N: usize>(names: [&str; N], mode: u32) -> BTreeMap<String, u32> {
    names.map(|name| (name.to_owned(), mode)).into()
}

const AT_WORK: [&str; 3] = [".persistify.lock", "stock.journal", "stock.meta"];
const AT_REST: [&str; 3] = [".persistify.lock", "stock.json", "stock.meta"];

/// Values were written to files that every user of the machine could read.
#[tokio::test]
async fn new_files_are_private() {
    let above = TempDir::new().unwrap();
    let folder = above.path().join("made/here");
    let files = JsonFile::open(&folder).await.unwrap();
    Writer::new().put(&files, "apple", "1").await.unwrap();
    assert_eq!(modes(&folder), all(AT_WORK, 0o600));
    files.release(&stock()).await.unwrap();
    assert_eq!(modes(&folder), all(AT_REST, 0o600));
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(folder.parent().unwrap()), 0o700);
}

#[tokio::test]
async fn new_files_have_the_mode_of_the_option() {
    let above = TempDir::new().unwrap();
    let folder = above.path().join("made");
    let builder = JsonFile::builder(&folder).file_mode(0o664);
    let files = builder.open().await.unwrap();
    Writer::new().put(&files, "apple", "1").await.unwrap();
    assert_eq!(modes(&folder), all(AT_WORK, 0o664));
    files.release(&stock()).await.unwrap();
    assert_eq!(modes(&folder), all(AT_REST, 0o664));
    assert_eq!(mode(&folder), 0o775);

    for wrong in [0o440, 0o1600, 0] {
        let opened = JsonFile::builder(&folder).file_mode(wrong).open().await;
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let bounds = error.to_string();
        assert!(
            bounds.contains("file_mode") && bounds.contains("0o600"),
            "{bounds}"
        );
    }
}

/// Journals, meta files and torn batches contain values of the map, but were readable for all
/// users even if its file was not.
#[tokio::test]
async fn files_beside_a_file_have_its_mode() {
    for shared in [0o600, 0o640, 0o664] {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_by_hand(&folder, "{}");
        set_mode(path("stock.json"), shared);
        let mut writer = Writer::new();
        let files = open(&folder).await;
        writer.put(&files, "apple", "1").await.unwrap();
        writer.put(&files, "apple", "2").await.unwrap();
        for name in ["stock.json", "stock.meta", "stock.journal"] {
            assert_eq!(mode(path(name)), shared, "{name}");
        }
        // The last batch is torn, and the files are open to all, as in an earlier version.
        drop(files);
        let journal = fs::read(path("stock.journal")).unwrap();
        fs::write(path("stock.journal"), &journal[..journal.len() - 1]).unwrap();
        set_mode(path("stock.journal"), 0o666);
        set_mode(path("stock.meta"), 0o666);
        let files = open(&folder).await;
        load(&files).await.unwrap();
        for name in ["stock.torn", "stock.journal"] {
            assert_eq!(mode(path(name)), shared, "{name}");
        }
        files.release(&stock()).await.unwrap();
        for name in ["stock.json", "stock.meta"] {
            assert_eq!(mode(path(name)), shared, "{name}");
        }
    }
}

/// A read-only file is still replaced, and the files beside it are writable by their owner.
#[tokio::test]
async fn a_journal_beside_a_read_only_file_can_be_written() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_by_hand(&folder, "{}");
    set_mode(path("stock.json"), 0o440);
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "1").await.unwrap();
    assert_eq!(mode(path("stock.journal")), 0o640);
    Writer::new().put(&files, "apple", "2").await.unwrap();
}

/// A service that once ran as root left files that it could not read later as the owner of the
/// folder.
#[tokio::test]
async fn files_beside_a_file_of_another_user_are_owned_by_that_user() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_by_hand(&folder, "{}");
    set_mode(path("stock.json"), 0o640);
    if chown(path("stock.json"), Some(12_345), Some(12_346)).is_err() {
        println!("left out: only root gives a file to another user");
        return;
    }
    let check = |name: &&str| {
        let found = fs::metadata(path(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (12_345, 12_346), "{name}");
        assert_eq!(mode(path(name)), 0o640, "{name}");
    };
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "1").await.unwrap();
    ["stock.json", "stock.meta", "stock.journal"]
        .iter()
        .for_each(check);
    files.release(&stock()).await.unwrap();
    ["stock.json", "stock.meta"].iter().for_each(check);
}

const AGAIN: &str = "PERSISTIFY_TEST_UMASK";

/// The umask is set per process, so the other tests of this file run again in child processes.
#[test]
fn modes_under_any_umask_are_the_same() {
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    for umask in ["000", "077"] {
        let ran = Command::new("sh")
            .args(["-c", "umask $0 && exec \"$1\" json_file::modes", umask])
            .arg(std::env::current_exe().unwrap())
            .env(AGAIN, umask)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "umask {umask}: {said}");
        assert!(said.contains("6 passed"), "{said}");
    }
}
