//! Unexpected paths and folders.

use std::{os::unix::net::UnixListener, process::Command};

use persistify::{Disk, ErrorKind, RealDisk};

use super::*;

const HERE: &str = "PERSISTIFY_TEST_HERE";

/// The parent of an empty path was an empty path, and so on, until the stack overflowed.
/// The test runs in its own process, because the current folder is set per process.
#[test]
fn an_empty_path_is_the_current_folder() {
    let test = "json_file::hostile::an_empty_path_is_the_current_folder";
    if std::env::var_os(HERE).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(in_the_current_folder());
    }
    let folder = TempDir::new().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .current_dir(folder.path())
        .env(HERE, "")
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    assert_eq!(
        names(folder.path()),
        ["bare", "stock.json", "stock.meta", "twice"]
    );
}

async fn in_the_current_folder() {
    let files = JsonFile::open("").await.unwrap();
    Writer::new().put(&files, "apple", "1").await.unwrap();
    files.close().await.unwrap();
    JsonFile::open("bare").await.unwrap().close().await.unwrap();
    let nested = JsonFile::open("twice/nested").await.unwrap();
    nested.close().await.unwrap();
}

/// Each missing parent took a part of the stack, so a long path crashed the process.
#[test]
fn a_long_path_takes_no_stack() {
    let folder = quick_folder();
    let path = folder.path().join("a/".repeat(20_000));
    let tried = std::thread::Builder::new().stack_size(256 * 1024);
    let tried = tried.spawn(move || RealDisk::new().make_folder(&path));
    tried.unwrap().join().unwrap().unwrap_err();
    // Too deep for `TempDir` to remove.
    let removed = Command::new("rm").arg("-rf").arg(folder.path()).status();
    assert!(removed.unwrap().success());
}

/// Opening a FIFO waits for its other end. The call never returned, nor did the shutdown of the
/// runtime, which waits for its threads.
#[tokio::test]
async fn a_path_that_is_not_a_file_is_unusable_at_once() {
    for name in [
        "stock.json",
        "stock.meta",
        "stock.journal",
        ".persistify.lock",
    ] {
        for kind in ["FIFO", "socket", "device", "folder"] {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join(name);
            let held = make(kind, &path);
            let opened = tokio::time::timeout(Duration::from_secs(30), async {
                load(&JsonFile::open(folder.path()).await?).await
            });
            let error = opened.await.expect("it waits").unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Unusable,
                "{name}, {kind}: {error:?}"
            );
            let said = error.to_string();
            assert!(said.contains(name) && said.contains(kind), "{kind}: {said}");
            assert!(!error.may_have_applied());
            drop(held);
        }
    }
}

fn make(kind: &str, path: &Path) -> Option<UnixListener> {
    match kind {
        "FIFO" => {
            let made = Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
        }
        "socket" => return Some(UnixListener::bind(path).unwrap()),
        "device" => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        _ => fs::create_dir(path).unwrap(),
    }
    None
}

/// Opening the folder removed every file whose name began with `.persistify-`, and failed if a
/// folder had such a name, because a folder cannot be removed like a file.
#[tokio::test]
async fn files_that_are_not_surely_left_over_stay() {
    let folder = TempDir::new().unwrap();
    let kept = [
        ".persistify-ABCDEFGHIJKLMNO-.tmp",
        ".persistify-ABCDEFGHIJKLMNOP",
        ".persistify-ABCDEFGHIJKLMNOP.tmp",
        ".persistify-ABCDEFGHIJKLMNOPQ.tmp",
        ".persistify-backup",
        ".persistify-notes.txt",
    ];
    for name in kept {
        fs::write(folder.path().join(name), "dear diary").unwrap();
    }
    let folders = [".persistify-ABCDEFGHIJKLMNOQ.tmp", ".persistify-cache"];
    for name in folders {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let left_over = ["", "{\n  \"apple\": 1", "\u{ff}", "?"];
    for (n, text) in left_over.into_iter().enumerate() {
        let name = format!(".persistify-ABCDEFGHIJKLMN0{n}.tmp");
        // The third file is a byte that is not valid UTF-8.
        let bytes = if text == "\u{ff}" {
            &[0xff][..]
        } else {
            text.as_bytes()
        };
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    open(&folder).await.close().await.unwrap();
    let mut expected = [&kept[..], &folders[..]].concat();
    expected.sort_unstable();
    assert_eq!(names(folder.path()), expected);
    for name in kept {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(text, "dear diary");
    }
}
