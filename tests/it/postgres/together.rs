//! Two processes write to one map. Replaying their commits in the order of the revisions must
//! yield the table.
//!
//! The test binary runs itself as a child, with its parameters in environment variables. The
//! child records each commit with its revision.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

use super::{pgbouncer::PgBouncer, server::Server, *};

const URL: &str = "PERSISTIFY_TOGETHER_URL";
const NOTES: &str = "PERSISTIFY_TOGETHER_NOTES";
const MILLIS: &str = "PERSISTIFY_TOGETHER_MILLIS";
const PROCESSES: u64 = 2;
const TASKS: u64 = 3;

/// The changes of one commit.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    revision: u64,
    clear: bool,
    changes: Vec<NotedChange>,
    skipped: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct NotedChange {
    key: String,
    /// `None` for a deletion.
    value: Option<u64>,
    /// The change is skipped if the entry exists.
    if_absent: bool,
}

#[test]
fn two_processes_write_the_same_and_different_keys() {
    if env::var_os(URL).is_some() {
        return work();
    }
    let database = Database::fresh();
    let test = "postgres::together::two_processes_write_the_same_and_different_keys";
    check(test, &database, database.url(), Duration::from_secs(10));
}

#[test]
fn two_processes_share_the_few_sessions_of_a_pooler() {
    if env::var_os(URL).is_some() {
        return work();
    }
    let server = Server::shared();
    let database = Database::on(server);
    let pooler = PgBouncer::before(server);
    let test = "postgres::together::two_processes_share_the_few_sessions_of_a_pooler";
    check(
        test,
        &database,
        &pooler.url(database.name()),
        Duration::from_secs(2),
    );
}

fn check(test: &str, database: &Database, url: &str, time: Duration) {
    let folder = tempfile::tempdir().unwrap();
    let notes = |n: u64| folder.path().join(n.to_string());
    // The children start at once, in an empty database.
    let children = (0..PROCESSES).map(|n| spawn(test, url, &notes(n), time));
    for mut child in children.collect::<Vec<_>>() {
        assert!(child.wait().unwrap().success());
    }
    let mut commits: Vec<Noted> = Vec::new();
    for n in 0..PROCESSES {
        let lines = fs::read_to_string(notes(n)).unwrap();
        let before = commits.len();
        commits.extend(
            lines
                .lines()
                .map(|line| serde_json::from_str::<Noted>(line).unwrap()),
        );
        assert!(
            commits.len() > before + 50,
            "only {}",
            commits.len() - before
        );
    }
    println!("{} commits", commits.len());
    commits.sort_by_key(|commit| commit.revision);
    let twice = commits
        .windows(2)
        .find(|two| two[0].revision == two[1].revision);
    assert!(twice.is_none(), "{twice:?}");
    let rows = database
        .witness()
        .rows("SELECT key, value::text, revision FROM map_map");
    let number = |text: String| text.parse().unwrap();
    let found: BTreeMap<String, (u64, i64)> = rows
        .iter()
        .map(|row| (row.get(0), (number(row.get(1)), row.get(2))))
        .collect();
    assert_eq!(found, replay(&commits));
}

/// Applies the commits one after the other.
fn replay(commits: &[Noted]) -> BTreeMap<String, (u64, i64)> {
    let mut entries = BTreeMap::new();
    for commit in commits {
        if commit.clear {
            entries.clear();
        }
        let revision = i64::try_from(commit.revision).unwrap();
        let mut skipped = Vec::new();
        for change in &commit.changes {
            let key = change.key.clone();
            match change.value {
                _ if change.if_absent && entries.contains_key(&key) => skipped.push(key),
                Some(value) => drop(entries.insert(key, (value, revision))),
                None => drop(entries.remove(&key)),
            }
        }
        skipped.sort();
        assert_eq!(skipped, commit.skipped, "in {commit:?}");
    }
    entries
}

fn spawn(test: &str, url: &str, notes: &Path, time: Duration) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(URL, url)
        .env(NOTES, notes)
        .env(MILLIS, time.as_millis().to_string())
        .spawn()
        .unwrap()
}

// The child.

fn work() {
    let millis = env::var(MILLIS).unwrap().parse().unwrap();
    let until = Instant::now() + Duration::from_millis(millis);
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    let noted = runtime.block_on(async {
        let store = Postgres::connect(env::var(URL).unwrap()).await.unwrap();
        let tasks = (0..TASKS).map(|task| tokio::spawn(write(store.clone(), task, until)));
        let mut noted = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            noted.extend(task.await.unwrap());
        }
        noted
    });
    let lines = noted
        .iter()
        .map(|commit| serde_json::to_string(commit).unwrap() + "\n");
    fs::write(
        PathBuf::from(env::var_os(NOTES).unwrap()),
        lines.collect::<String>(),
    )
    .unwrap();
}

/// Commits until the time is over. Other writers must cause no error.
async fn write(store: Postgres, task: u64, until: Instant) -> Vec<Noted> {
    let (mut pen, map) = (Pen::new(), name("map"));
    let mut dice = SmallRng::from_rng(&mut rand::rng());
    let own = format!("{}-{task}", std::process::id());
    let mut noted = Vec::new();
    while Instant::now() < until {
        let clear = dice.random_ratio(1, 100);
        let changes = random_changes(&mut dice, &own);
        let part = changes.iter().map(change).collect();
        let batch = pen.batch(vec![MapBatch::new(map.clone(), part).clearing(clear)]);
        let committed = store.commit(&batch).await.unwrap();
        let skipped = committed
            .skipped
            .iter()
            .map(|skipped| skipped.key.to_string());
        let mut skipped: Vec<_> = skipped.collect();
        skipped.sort();
        noted.push(Noted {
            revision: committed.revision.unwrap().get(),
            clear,
            changes,
            skipped,
        });
    }
    noted
}

/// Returns changes of distinct keys in random order, most of them shared by all writers.
fn random_changes(dice: &mut SmallRng, own: &str) -> Vec<NotedChange> {
    let count = dice.random_range(1..40);
    let mut changes: Vec<NotedChange> = Vec::new();
    for _ in 0..count {
        let number = dice.random_range(0..60);
        let key = if number % 4 == 0 {
            format!("{own} {number}")
        } else {
            format!("all {number}")
        };
        if changes.iter().any(|change| change.key == key) {
            continue;
        }
        let value = dice
            .random_ratio(3, 4)
            .then(|| dice.random_range(0..1_000_000));
        let if_absent = value.is_some() && dice.random_ratio(1, 20);
        changes.push(NotedChange {
            key,
            value,
            if_absent,
        });
    }
    changes
}

fn change(noted: &NotedChange) -> Change {
    let change = match noted.value {
        Some(value) => put(&noted.key, &value.to_string()),
        None => Change::delete(noted.key.as_str()),
    };
    if noted.if_absent {
        change.expect(Expect::Absent, Otherwise::Skip)
    } else {
        change
    }
}
