//! Opening a folder: its lock, and failures of the lock or the folder.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use persistify::ErrorKind;

use super::*;

#[tokio::test]
async fn a_folder_opens_once_until_it_is_closed_or_dropped() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let clone = files.clone();
    for _ in 0..2 {
        let error = JsonFile::open(folder.path()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(".persistify.lock"), "{error}");
        assert!(!error.may_have_applied());
    }
    drop(files);
    JsonFile::open(folder.path()).await.unwrap_err();
    drop(clone);
    let files = open(&folder).await;
    Writer::new().put(&files, "apple", "1").await.unwrap();
    files.close().await.unwrap();
    files.close().await.unwrap();
    let other = open(&folder).await;
    assert_eq!(load(&files).await.unwrap_err().kind(), ErrorKind::Closed);
    let error = Writer::new().put(&files, "apple", "2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(
        files.release(&stock()).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(files.maps().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(files.ping().await.unwrap_err().kind(), ErrorKind::Closed);
    // The close compacted the journal.
    assert_eq!(names(folder.path()), ["stock.json", "stock.meta"]);
    assert_eq!(texts(&other).await.unwrap(), pairs([("apple", "1")]));
}

const FOLDER: &str = "PERSISTIFY_TEST_FOLDER";

/// The second process: opens the folder, prints the result, and holds the folder until its
/// input ends.
#[tokio::test]
async fn second_process() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let files = JsonFile::open(folder).await;
    println!("opened: {}", files.is_ok());
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    use std::io::{BufRead, BufReader};
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    for is_free in [false, true] {
        let mut other = Command::new(std::env::current_exe().unwrap())
            .args(["json_file::locks::second_process", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(other.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        let said = lines.find(|line| line.contains("opened: ")).unwrap();
        assert!(said.ends_with(&format!("opened: {is_free}")), "{said}");
        if is_free {
            let error = JsonFile::open(folder.path()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            // A killed process leaves no lock.
            other.kill().unwrap();
            other.wait().unwrap();
            open(&folder).await;
        } else {
            drop(other.stdin.take());
            assert!(other.wait().unwrap().success());
            files.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_missing_folder_is_created_with_its_parents() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/b/c");
    let files = JsonFile::open(&path).await.unwrap();
    Writer::new().put(&files, "apple", "1").await.unwrap();
    assert_eq!(names(&path), ["stock.journal", "stock.meta"]);
}

#[tokio::test]
async fn a_path_that_cannot_be_a_folder_is_unusable() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let mut cases = vec![file.clone(), file.join("below")];
    if cfg!(target_os = "linux") {
        // No user can create a file there, not even root.
        cases.push("/proc/self".into());
    }
    for path in cases {
        let error = JsonFile::open(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable, "{error:?}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[tokio::test]
async fn a_read_only_folder_is_unusable() {
    use super::shaky_disk::{Plan, ShakyDisk};
    let folder = TempDir::new().unwrap();
    for (with, remedy) in [
        (std::io::ErrorKind::PermissionDenied, "permission"),
        (
            std::io::ErrorKind::ReadOnlyFilesystem,
            "mount it for writing",
        ),
    ] {
        let disk = ShakyDisk::with(Plan::Fail { at: 1, with });
        let opened = JsonFile::builder(folder.path()).disk(disk.shared()).open();
        let error = opened.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable, "{error:?}");
        assert!(error.to_string().contains(remedy), "{error}");
        assert!(
            error.to_string().contains(folder.path().to_str().unwrap()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_folder_in_the_place_of_a_file_is_unusable_until_it_is_gone() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    for name in ["stock.json", "stock.meta", "stock.journal"] {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        let error = load(&files).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable, "{error:?}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        assert!(
            error.to_string().contains("a folder is in the place"),
            "{error}"
        );
        fs::remove_dir(&path).unwrap();
    }
    load(&files).await.unwrap();

    // While the map is open, calls fail until the folder is gone, and nothing is lost.
    let mut writer = Writer::new();
    let journal = folder.path().join("stock.journal");
    fs::create_dir(&journal).unwrap();
    let batch = writer.batch(vec![put("apple", "1")]);
    let error = files.commit(&batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable, "{error:?}");
    assert!(!error.may_have_applied());
    fs::remove_dir(&journal).unwrap();
    files.commit(&batch).await.unwrap();
    assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "1")]));
}

/// An open file can still be written to after its folder is moved, but a restart would not find
/// it.
#[tokio::test]
async fn a_folder_that_is_moved_away_is_unusable_until_it_is_back() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("data");
    let away = parent.path().join("away");
    let files = JsonFile::open(&path).await.unwrap();
    let mut writer = Writer::new();
    writer.put(&files, "apple", "1").await.unwrap();
    files.release(&stock()).await.unwrap();
    load(&files).await.unwrap();

    fs::rename(&path, &away).unwrap();
    let batch = writer.batch(vec![put("apple", "2")]);
    // The second round has another folder in its place.
    for _ in 0..2 {
        let error = files.commit(&batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable, "{error:?}");
        assert!(!error.may_have_applied());
        let other = name("other");
        let error = files.load(&other, Wanted::All).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable, "{error:?}");
        files.ping().await.unwrap_err();
        fs::create_dir_all(&path).unwrap();
    }
    fs::remove_dir(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    files.ping().await.unwrap();
    files.commit(&batch).await.unwrap();
    drop(files);
    let files = JsonFile::open(&path).await.unwrap();
    assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "2")]));
}

#[tokio::test]
async fn a_call_without_a_runtime_is_invalid() {
    let folder = TempDir::new().unwrap();
    let files = open(&folder).await;
    let ping = std::thread::spawn(move || futures_util::FutureExt::now_or_never(files.ping()));
    let error = ping.join().unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("on a tokio runtime"), "{error}");
}

/// A starting process briefly has a copy of all open files of its parent, including the lock.
/// In a program that starts others, a folder that was closed and opened again was sometimes
/// still locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_while_a_process_starts_is_released_at_once() {
    let folder = TempDir::new().unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    let done = is_done.clone();
    let starter = std::thread::spawn(move || {
        while !done.load(Ordering::Relaxed) {
            let exe = std::env::current_exe().unwrap();
            let mut started = Command::new(exe)
                .args(["--list", "none"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            started.wait().unwrap();
        }
    });
    let mut locked = 0;
    for _ in 0..100 {
        match JsonFile::open(folder.path()).await {
            Ok(files) => files.close().await.unwrap(),
            Err(_) => locked += 1,
        }
    }
    is_done.store(true, Ordering::Relaxed);
    starter.join().unwrap();
    assert_eq!(locked, 0);
}

/// The lock file of an open folder was removed because it looked like a leftover. A second
/// program could then open the folder, and the first one, whose map had no journal yet,
/// replaced the journal with the commits of the second.
#[tokio::test]
async fn a_provider_that_lost_its_lock_file_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let first = open(&folder).await;
    load(&first).await.unwrap();
    fs::remove_file(folder.path().join(".persistify.lock")).unwrap();
    let second = open(&folder).await;
    Writer::new().put(&second, "apple", "2").await.unwrap();
    let error = Writer::new().put(&first, "apple", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable, "{error:?}");
    assert!(!error.may_have_applied());
    assert!(error.to_string().contains(".persistify.lock"), "{error}");
    first.ping().await.unwrap_err();
    Writer::new().put(&second, "pear", "2").await.unwrap();
    drop((first, second));
    let files = open(&folder).await;
    let expected = pairs([("apple", "2"), ("pear", "2")]);
    assert_eq!(texts(&files).await.unwrap(), expected);
}

/// Like the test above, but the journal exists, and the first provider also tries to compact.
#[tokio::test]
async fn a_provider_that_lost_its_lock_file_neither_appends_nor_compacts() {
    let folder = TempDir::new().unwrap();
    let first = open(&folder).await;
    let mut writer = Writer::new();
    writer.put(&first, "apple", "1").await.unwrap();
    fs::remove_file(folder.path().join(".persistify.lock")).unwrap();
    let second = open(&folder).await;
    load(&second).await.unwrap();
    let error = writer.put(&first, "apple", "3").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable, "{error:?}");
    assert!(!error.may_have_applied());
    first.release(&stock()).await.unwrap_err();
    first.close().await.unwrap_err();
    Writer::new().put(&second, "apple", "2").await.unwrap();
    second.close().await.unwrap();
    let files = open(&folder).await;
    assert_eq!(texts(&files).await.unwrap(), pairs([("apple", "2")]));
}

/// Two providers created the same missing folder at once, and one failed because it already
/// existed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn providers_that_create_the_same_parents_at_once_open() {
    let parent = TempDir::new().unwrap();
    for round in 0..200 {
        let above = parent.path().join(format!("a{round}/b/c"));
        let opened = (0..4).map(|n| {
            let path = above.join(n.to_string());
            tokio::spawn(async move { JsonFile::open(path).await })
        });
        for opened in futures_util::future::join_all(opened).await {
            opened.unwrap().unwrap();
        }
    }
}
