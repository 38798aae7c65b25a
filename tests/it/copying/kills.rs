//! Kills in the middle of a copy, again and again: the copy resumes, and the result is
//! complete.
//!
//! The test binary runs itself as a child. The child prints its progress, and the parent kills
//! it there.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use persistify::{JsonFile, Memory, Sqlite, copy};

use super::{MAP, held, silent};
use crate::support::{put, write_as_another};

const FOLDER: &str = "PERSISTIFY_COPY_FOLDER";
const TEST: &str = "copying::kills::a_copy_that_is_killed_goes_on_and_ends_right";
const RECORDS: usize = 22_000;

async fn stores(folder: &Path) -> (JsonFile, Sqlite) {
    let files = JsonFile::open(folder.join("files")).await.unwrap();
    (files, Sqlite::open(folder.join("maps.db")).await.unwrap())
}

fn say(records: u64) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\nat {records}\n").as_bytes())
        .unwrap();
    out.flush().unwrap();
}

/// Starts a copy, and kills it once it has copied that many records.
fn copy_and_kill(folder: &Path, records: u64) {
    let child = Command::new(env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut at = lines.map_while(|line| line.ok()).filter_map(|line| {
        let records = line.strip_prefix("at ")?;
        records.parse::<u64>().ok()
    });
    assert!(at.any(|at| at >= records), "it did not get there");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_copy_that_is_killed_goes_on_and_ends_right() {
    if let Some(folder) = env::var_os(FOLDER) {
        let (files, sqlite) = stores(folder.as_ref()).await;
        let copied = copy(&files, &sqlite, MAP, |records, _| say(records));
        copied.await.unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::new();
    let many = (0..RECORDS).map(|n| put(&format!("key {n}"), &n.to_string()));
    write_as_another(&memory, many.collect()).await;
    let files = JsonFile::open(folder.path().join("files")).await.unwrap();
    copy(&memory, &files, MAP, silent).await.unwrap();
    files.close().await.unwrap();
    let mut counts = Vec::new();
    for kill_at in [1, 11_000, 21_000] {
        copy_and_kill(folder.path(), kill_at);
        let sqlite = Sqlite::open(folder.path().join("maps.db")).await.unwrap();
        counts.push(held(&sqlite).await.len());
        sqlite.close().await.unwrap();
    }
    assert!(counts.is_sorted(), "{counts:?}");
    assert!(
        counts.iter().any(|n| (1..RECORDS).contains(n)),
        "{counts:?}"
    );
    let (files, sqlite) = stores(folder.path()).await;
    let copied = copy(&files, &sqlite, MAP, silent).await.unwrap();
    assert_eq!(copied.records, RECORDS as u64);
    assert!(copied.written < copied.records, "it began anew");
    assert_eq!(held(&sqlite).await, held(&memory).await);
}
