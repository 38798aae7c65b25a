//! Paths that do not lead to regular files, and the permissions of new files.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::Path,
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

async fn write(to: &Sqlite) {
    Pen::new().put(to, &name("m"), "apple", "1").await;
}

fn make(kind: &str, path: &Path) -> Option<UnixListener> {
    match kind {
        "FIFO" => {
            let made = Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
        }
        "socket" => return Some(UnixListener::bind(path).unwrap()),
        _ => symlink("/dev/zero", path).unwrap(),
    }
    None
}

/// SQLite opened a FIFO with the name of its file and blocked until a process wrote to it. The
/// call and the exit of the program waited forever.
#[tokio::test]
async fn a_fifo_socket_or_device_is_unusable_at_once() {
    for file in ["maps.db", "maps.db-wal", "maps.db-shm", "maps.db-journal"] {
        for kind in ["FIFO", "socket", "device"] {
            let place = Place::new();
            let path = place.folder.path().join(file);
            let held = make(kind, &path);
            let opened = Sqlite::open(place.path());
            let opened = tokio::time::timeout(Duration::from_secs(30), opened).await;
            let error = error(opened.expect("it waits"));
            assert_eq!(error.kind(), ErrorKind::Unusable, "{file}: {error:?}");
            let said = format!("{error:?}");
            assert!(said.contains(file) && said.contains(kind), "{said}");
            drop(held);
        }
    }
}

#[tokio::test]
async fn backups_to_and_from_a_fifo_are_unusable() {
    let place = Place::new();
    let sqlite = place.open().await;
    let pipe = place.folder.path().join("pipe");
    make("FIFO", &pipe);
    let limit = Duration::from_secs(30);
    let made = tokio::time::timeout(limit, sqlite.backup(&pipe)).await;
    assert_eq!(error(made.unwrap()).kind(), ErrorKind::Unusable);
    let other = place.folder.path().join("other.db");
    for restored in [
        tokio::time::timeout(limit, Sqlite::restore(&pipe, &other)).await,
        tokio::time::timeout(limit, Sqlite::restore_over(place.path(), &pipe)).await,
    ] {
        assert_eq!(error(restored.unwrap()).kind(), ErrorKind::Unusable);
    }
    assert!(!other.exists());
}

/// Values were written to files that all users of the machine could read.
#[tokio::test]
async fn new_files_and_folders_are_private_to_the_user() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("made/here");
    for (file, wanted, of_folder) in [("private.db", 0o600, 0o700), ("shared.db", 0o640, 0o700)] {
        let path = folder.join(file);
        let sqlite = Sqlite::builder(&path).file_mode(wanted).open().await;
        let sqlite = sqlite.unwrap();
        write(&sqlite).await;
        for end in ["", "-wal", "-shm"] {
            assert_eq!(mode(folder.join(format!("{file}{end}"))), wanted, "{end}");
        }
        assert_eq!(mode(&folder), of_folder);
        assert_eq!(mode(folder.parent().unwrap()), of_folder);
        sqlite.close().await.unwrap();
        assert_eq!(mode(&path), wanted);
    }
    let default = Sqlite::open(above.path().join("default.db")).await.unwrap();
    assert_eq!(mode(above.path().join("default.db")), 0o600);
    drop(default);
    let wrong = Sqlite::builder(above.path().join("no.db")).file_mode(0o444);
    let error = error(wrong.open().await);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("file_mode"), "{error}");
}

#[tokio::test]
async fn an_existing_file_keeps_its_mode() {
    let place = Place::new();
    place.other().execute_batch("CREATE TABLE t (a)").unwrap();
    set_mode(place.path(), 0o660);
    let sqlite = place.open().await;
    write(&sqlite).await;
    for end in ["", "-wal", "-shm"] {
        let path = place.folder.path().join(format!("maps.db{end}"));
        assert_eq!(mode(path), 0o660, "{end}");
    }
}

/// The file is created at the target of the link.
#[tokio::test]
async fn a_new_file_behind_a_link_is_private_to_the_user() {
    let place = Place::new();
    let real = place.folder.path().join("real.db");
    symlink("real.db", place.path()).unwrap();
    let sqlite = place.open().await;
    write(&sqlite).await;
    assert_eq!(mode(&real), 0o600);
    assert!(fs::symlink_metadata(place.path()).unwrap().is_symlink());
}

/// A backup could be read by all users, even if the original was private.
#[tokio::test]
async fn a_backup_has_the_mode_of_the_file_it_replaces_or_of_the_original() {
    let place = Place::new();
    let path = |name: &str| place.folder.path().join(name);
    let sqlite = place.open().await;
    write(&sqlite).await;
    sqlite.backup(path("new.db")).await.unwrap();
    assert_eq!(mode(path("new.db")), 0o600);
    set_mode(path("new.db"), 0o640);
    sqlite.backup(path("new.db")).await.unwrap();
    assert_eq!(mode(path("new.db")), 0o640);
    Sqlite::restore(path("new.db"), path("again.db"))
        .await
        .unwrap();
    assert_eq!(mode(path("again.db")), 0o640);
    set_mode(path("again.db"), 0o600);
    Sqlite::restore_over(path("new.db"), path("again.db"))
        .await
        .unwrap();
    assert_eq!(mode(path("again.db")), 0o600);
}

/// Several handles open a missing file at once. The file is created once, and no handle loses
/// its locks.
#[tokio::test]
async fn a_file_that_several_create_at_once_is_created_once() {
    for _ in 0..20 {
        let place = Place::new();
        let opened = (0..6).map(|_| tokio::spawn(Sqlite::open(place.path())));
        let opened: Vec<_> = opened.collect();
        for sqlite in opened {
            write(&sqlite.await.unwrap().unwrap()).await;
        }
        let whole = place
            .other()
            .query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        assert_eq!(whole.unwrap(), "ok");
        let left = fs::read_dir(place.folder.path()).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(left.filter(|name| !name.starts_with("maps.db")).count(), 0);
    }
}
