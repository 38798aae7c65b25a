//! Two processes with one SQLite file.
//!
//! The test binary runs itself as a child, with its parameters in environment variables. Each
//! child adds to the same number as often as it can.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use persistify::Sqlite;

use super::*;

const FILE: &str = "PERSISTIFY_CONFLICTS_FILE";
const PROCESSES: u32 = 2;
const ADDITIONS: u32 = 150;

async fn open_file(file: &Path, policy: OnConflict<u32>) -> PersistentMap<u32> {
    let sqlite = Sqlite::open(file).await.unwrap();
    let map = PersistentMap::builder(sqlite, "map").batch(1, Duration::from_millis(1));
    map.conflicts(policy).open().await.unwrap()
}

/// Adds one. An addition that lost a conflict was based on an old number, so it is repeated on the
/// stored number, which the map holds by then.
async fn add(map: &PersistentMap<u32>) {
    while let Err(lost) = map.update_and_save("sum", |n| *n += 1).await {
        assert_eq!(lost.kind(), ErrorKind::Conflict, "{lost:?}");
    }
}

fn work(file: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let map = open_file(file, OnConflict::StoreWins).await;
        for _ in 0..ADDITIONS {
            add(&map).await;
        }
        let met = map.stats().conflicts;
        map.close().await.unwrap();
        println!("\nmet {met}");
    });
}

fn spawn(test: &str, file: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn met(child: Child) -> u32 {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    let met = said.lines().find_map(|line| line.strip_prefix("met "));
    met.unwrap().parse().unwrap()
}

#[test]
fn no_addition_of_two_processes_is_lost() {
    if let Some(file) = env::var_os(FILE) {
        return work(&PathBuf::from(file));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maps.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let map = open_file(&file, OnConflict::LastWrite).await;
        map.insert_and_save("sum", 0).await.unwrap();
        map.close().await.unwrap();
    });
    let test = "conflicts::processes::no_addition_of_two_processes_is_lost";
    let children = [(); PROCESSES as usize].map(|()| spawn(test, &file));
    let met: u32 = children.map(met).iter().sum();
    let sum = runtime.block_on(async {
        let map = open_file(&file, OnConflict::LastWrite).await;
        map.get("sum")
    });
    assert_eq!(sum, Some(PROCESSES * ADDITIONS));
    assert!(met > 0, "they never met");
}
