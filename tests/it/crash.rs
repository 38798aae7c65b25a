//! Kills at random moments: everything acknowledged is in the store, unbroken, and the map
//! opens.
//!
//! The test binary runs itself as a child, with its parameters in environment variables. The child
//! opens the map, changes it from several tasks and closes it, over and over, until it is killed.
//! On its standard output it announces each write, and then its acknowledgement.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use persistify::{PersistentMap, Provider};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use tokio::sync::RwLock;

use crate::support::{
    as_it_is,
    child::{self, Orders, say},
    open,
};

const TASKS: u64 = 4;
const KEYS_EACH: u64 = 6;

/// A store in a folder.
trait OnDisk {
    /// Resources that have to exist for the whole test.
    type Place;

    const KILLS: u64 = 60;
    /// The longest time until a child is killed, in milliseconds.
    const MAX_MILLIS: u64 = 110;

    fn prepare(folder: &Path) -> Self::Place;

    /// Waits until the store has finished the requests of the killed child.
    fn settle(_place: &Self::Place) {}

    async fn open(folder: &Path) -> Arc<dyn Provider>;
}

#[cfg(feature = "json")]
struct AsJsonFile;

#[cfg(feature = "json")]
impl OnDisk for AsJsonFile {
    type Place = ();

    fn prepare(_folder: &Path) {}

    async fn open(folder: &Path) -> Arc<dyn Provider> {
        // Compacted every few commits, so that kills hit compactions as well.
        let files = persistify::JsonFile::builder(folder).max_journal(1_024);
        Arc::new(files.open().await.unwrap())
    }
}

#[cfg(feature = "json")]
#[test]
fn an_acknowledged_write_to_json_files_survives_kills() {
    survive::<AsJsonFile>("crash::an_acknowledged_write_to_json_files_survives_kills");
}

#[cfg(feature = "sqlite")]
struct OnSqlite;

#[cfg(feature = "sqlite")]
impl OnDisk for OnSqlite {
    type Place = ();

    fn prepare(_folder: &Path) {}

    async fn open(folder: &Path) -> Arc<dyn Provider> {
        let file = folder.join("maps.db");
        Arc::new(persistify::Sqlite::open(file).await.unwrap())
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn an_acknowledged_write_to_sqlite_survives_kills() {
    survive::<OnSqlite>("crash::an_acknowledged_write_to_sqlite_survives_kills");
}

/// Three files, one of which may have a part of a batch that another has not.
#[cfg(feature = "sqlite")]
struct OnShards;

#[cfg(feature = "sqlite")]
impl OnDisk for OnShards {
    type Place = ();

    const KILLS: u64 = 30;
    const MAX_MILLIS: u64 = 400;

    fn prepare(_folder: &Path) {}

    async fn open(folder: &Path) -> Arc<dyn Provider> {
        let mut shards = Vec::new();
        for name in ["a", "b", "c"] {
            let file = folder.join(format!("{name}.db"));
            shards.push((name, persistify::Sqlite::open(file).await.unwrap()));
        }
        Arc::new(persistify::Sharded::new(shards).unwrap())
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn an_acknowledged_write_to_shards_survives_kills() {
    survive::<OnShards>("crash::an_acknowledged_write_to_shards_survives_kills");
}

#[cfg(feature = "postgres")]
struct InPostgres;

/// A file in the folder contains the URL of the database.
#[cfg(feature = "postgres")]
impl OnDisk for InPostgres {
    type Place = crate::postgres::Database;

    const KILLS: u64 = 40;
    const MAX_MILLIS: u64 = 400;

    fn prepare(folder: &Path) -> Self::Place {
        let database = crate::postgres::Database::fresh();
        std::fs::write(folder.join("url"), database.url()).unwrap();
        database
    }

    /// A server executes the requests it has received even after the client is killed. An open
    /// before that may see the older state.
    fn settle(place: &Self::Place) {
        place.wait_until_unused();
    }

    async fn open(folder: &Path) -> Arc<dyn Provider> {
        let url = std::fs::read_to_string(folder.join("url")).unwrap();
        Arc::new(persistify::Postgres::connect(url).await.unwrap())
    }
}

#[cfg(feature = "postgres")]
#[test]
fn an_acknowledged_write_to_postgres_survives_kills() {
    survive::<InPostgres>("crash::an_acknowledged_write_to_postgres_survives_kills");
}

fn survive<D: OnDisk>(test: &str) {
    match child::orders() {
        Some(Orders { place, words }) => work::<D>(Path::new(&place), words.parse().unwrap()),
        None => kill_again_and_again::<D>(test),
    }
}

/// A value whose parts belong together.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Whole {
    number: u64,
    text: String,
}

impl Whole {
    fn new(number: u64) -> Self {
        // The text has a few bytes up to several pages.
        let text = number
            .to_string()
            .repeat(usize::try_from(number % 97 * 5).unwrap());
        Self { number, text }
    }

    fn checked(self) -> u64 {
        assert_eq!(self.text, Self::new(self.number).text, "a torn value");
        self.number
    }
}

// The child process.

fn work<D: OnDisk>(folder: &Path, seed: u64) {
    let mut dice = SmallRng::seed_from_u64(seed);
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for life in 0.. {
            let millis = dice.random_range(2..40);
            live::<D>(folder, seed * 1_000 + life, Duration::from_millis(millis)).await;
        }
    });
}

/// Opens the map, prints its contents, works for the given time, and closes it.
async fn live<D: OnDisk>(folder: &Path, seed: u64, time: Duration) {
    say("opening");
    let store = D::open(folder).await;
    let map: PersistentMap<Whole> = open(store.clone(), "map", |map| {
        map.batch(20, Duration::from_millis(3))
    })
    .await;
    for (key, whole) in &map {
        say(&format!("found {key} {}", whole.checked()));
    }
    say("opened");
    let gate = Arc::new(RwLock::new(()));
    let until = Instant::now() + time;
    let tasks = (0..TASKS).map(|task| {
        let dice = SmallRng::seed_from_u64(seed * 10 + task);
        tokio::spawn(write(map.clone(), gate.clone(), task, dice, until))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    say("closing");
    map.close().await.unwrap();
    store.close().await.unwrap();
    say("closed");
}

/// Each key is written by one task, and all tasks stop for a clear, so the output is in the
/// order of the writes.
async fn write(
    map: PersistentMap<Whole>,
    gate: Arc<RwLock<()>>,
    task: u64,
    mut dice: SmallRng,
    until: Instant,
) {
    while Instant::now() < until {
        let action = dice.random_range(0..40);
        if action == 0 && task == 0 {
            let _alone = gate.write().await;
            say("clear");
            map.clear_and_save().await.unwrap();
            say("cleared");
            continue;
        }
        let _turn = gate.read().await;
        let key = format!("{task}-{}", dice.random_range(0..KEYS_EACH));
        let number = dice.random_range(1..1_000_000_000);
        match action {
            0..5 => {
                say(&format!("remove {key}"));
                map.remove(&key);
            }
            5..10 => {
                say(&format!("remove {key}"));
                map.remove_and_save(&key).await.unwrap();
                say(&format!("saved {key}"));
            }
            10..20 => {
                say(&format!("write {key} {number}"));
                map.insert(&key, Whole::new(number));
            }
            20..24 => {
                say(&format!("flush {task}-"));
                map.flush().await.unwrap();
                say(&format!("flushed {task}-"));
            }
            _ => {
                say(&format!("write {key} {number}"));
                map.insert_and_save(&key, Whole::new(number)).await.unwrap();
                say(&format!("saved {key}"));
            }
        }
    }
}

// The parent process.

/// By key: the last acknowledged state, and all that were written since.
#[derive(Default)]
struct Shadow {
    written: HashMap<String, Vec<Option<u64>>>,
    found: HashMap<String, u64>,
    /// The phase of the last child when it was killed.
    phase: String,
    acknowledged: u64,
}

impl Shadow {
    fn new() -> Self {
        let keys = (0..TASKS).flat_map(|t| (0..KEYS_EACH).map(move |k| format!("{t}-{k}")));
        Self {
            written: keys.map(|key| (key, vec![None])).collect(),
            ..Self::default()
        }
    }

    fn hear(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["opening"] => self.found.clear(),
            ["found", key, number] => {
                self.found.insert(key.to_owned(), number.parse().unwrap());
            }
            ["opened"] => self.check_found(),
            ["write", key, number] => self.push(key, number.parse().ok()),
            ["remove", key] => self.push(key, None),
            ["saved", key] => self.acknowledge(|k| k == key),
            ["flushed", prefix] => self.acknowledge(|k| k.starts_with(prefix)),
            ["clear"] => self
                .written
                .values_mut()
                .for_each(|states| states.push(None)),
            ["cleared" | "closed"] => self.acknowledge(|_| true),
            _ => {}
        }
        if let ["opening" | "opened" | "closing" | "closed"] = words[..] {
            line.clone_into(&mut self.phase);
        }
    }

    fn push(&mut self, key: &str, state: Option<u64>) {
        self.written.get_mut(key).unwrap().push(state);
    }

    /// The writer of these keys waited for the acknowledgement, so the last state is the saved one.
    fn acknowledge(&mut self, which: impl Fn(&str) -> bool) {
        self.acknowledged += 1;
        for (key, states) in &mut self.written {
            if which(key) {
                states.drain(..states.len() - 1);
            }
        }
    }

    fn check_found(&mut self) {
        for (key, states) in &mut self.written {
            let found = self.found.remove(key);
            assert!(
                states.contains(&found),
                "{key} came back as {found:?}; acknowledged and written since: {states:?}"
            );
            *states = vec![found];
        }
        assert!(self.found.is_empty(), "from nowhere: {:?}", self.found);
    }
}

fn kill_again_and_again<D: OnDisk>(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let place = D::prepare(folder.path());
    let mut shadow = Shadow::new();
    let mut phases = HashMap::<String, u64>::new();
    let mut dice = SmallRng::seed_from_u64(7);
    for seed in 0..D::KILLS {
        let mercy = Duration::from_millis(dice.random_range(0..D::MAX_MILLIS));
        let child = child::spawn(test, folder.path().to_str().unwrap(), &seed.to_string());
        child::hear_and_kill(child, "opening", mercy, |line| shadow.hear(line));
        D::settle(&place);
        *phases.entry(shadow.phase.clone()).or_default() += 1;
    }
    println!(
        "killed while {phases:?}; {} acknowledged",
        shadow.acknowledged
    );
    assert!(shadow.acknowledged > D::KILLS, "{}", shadow.acknowledged);
    assert!(phases.len() > 1, "{phases:?}");
    open_at_last::<D>(folder.path(), &mut shadow);
}

#[tokio::main(flavor = "current_thread")]
async fn open_at_last<D: OnDisk>(folder: &Path, shadow: &mut Shadow) {
    let store = D::open(folder).await;
    let map = open::<Whole>(store.clone(), "map", as_it_is).await;
    let found = map
        .iter()
        .map(|(key, whole)| (key.to_string(), whole.checked()));
    shadow.found = found.collect();
    shadow.check_found();
    map.close().await.unwrap();
    store.close().await.unwrap();
}
