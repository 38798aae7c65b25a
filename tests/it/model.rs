//! Random histories, compared with a plain `HashMap` and with a record of the acknowledged
//! changes: memory equals the model at every step, and after a crash each key has a state
//! between its last acknowledged and its last written one.

mod history;
mod places;
mod tested;

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, SystemTime},
};

use persistify::{
    CachingMap, Clock, ErrorKind, Memory, PersistentMap, Provider, Record, Result, RetryPolicy,
    SystemClock,
    testing::{Fault, Faulty, Hang},
};
use proptest::prelude::*;

use crate::support::{map_name, records, settle, stored_values};
use history::History;
#[cfg(feature = "json")]
use places::AsJsonFile;
#[cfg(feature = "sqlite")]
use places::OnSqlite;
use places::Place;
use tested::{Tested, open};

const KEYS: u8 = 4;

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u64),
    InsertFor(u8, u64, u64),
    Update(u8, u64),
    Remove(u8),
    Retain(u64),
    Clear,
    InsertAndSave(u8, u64),
    UpdateAndSave(u8, u64),
    RemoveAndSave(u8),
    ClearAndSave,
    /// A save whose future is dropped after its first poll.
    Abandon(u8, u64),
    Flush,
    Reload,
    /// Time passes: entries expire, and the map saves by itself.
    Wait(u64),
    /// That many of the next commits fail in this way.
    Fail(u8, Failure),
    /// The next commit hangs until the map gives it up.
    Hang,
    /// Hanging commits are applied late.
    Land,
    Reopen {
        close: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Failure {
    Before,
    Lost,
    After,
    Unusable,
}

impl Failure {
    fn fault(self) -> Fault {
        match self {
            Self::Before => Fault::Before(ErrorKind::Unavailable),
            Self::Lost => Fault::Lost(ErrorKind::Unavailable),
            Self::After => Fault::After(ErrorKind::Unavailable),
            Self::Unusable => Fault::Before(ErrorKind::Unusable),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    let value = || any::<u64>();
    let failure = prop_oneof![
        Just(Failure::Before),
        Just(Failure::Lost),
        Just(Failure::After),
        Just(Failure::Unusable),
    ];
    prop_oneof![
        6 => (key(), value()).prop_map(|(k, v)| Step::Insert(k, v)),
        4 => (key(), value(), 0..400_u64).prop_map(|(k, v, ms)| Step::InsertFor(k, v, ms)),
        4 => (key(), value()).prop_map(|(k, v)| Step::Update(k, v)),
        4 => key().prop_map(Step::Remove),
        1 => value().prop_map(Step::Retain),
        2 => Just(Step::Clear),
        4 => (key(), value()).prop_map(|(k, v)| Step::InsertAndSave(k, v)),
        2 => (key(), value()).prop_map(|(k, v)| Step::UpdateAndSave(k, v)),
        2 => key().prop_map(Step::RemoveAndSave),
        1 => Just(Step::ClearAndSave),
        2 => (key(), value()).prop_map(|(k, v)| Step::Abandon(k, v)),
        3 => Just(Step::Flush),
        1 => Just(Step::Reload),
        4 => (0..200_u64).prop_map(Step::Wait),
        3 => (1..4_u8, failure).prop_map(|(n, failure)| Step::Fail(n, failure)),
        1 => Just(Step::Hang),
        1 => Just(Step::Land),
        3 => any::<bool>().prop_map(|close| Step::Reopen { close }),
    ]
}

/// The state of a key.
#[derive(Clone, Copy, Debug)]
struct Held {
    value: u64,
    /// When it expires, in milliseconds since 1970.
    until: Option<u64>,
    /// The entry's own TTL, which an update restarts.
    own: Option<u64>,
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// The deadline of an entry with that TTL of its own: a multiple of four milliseconds.
fn end_of(now: u64, own: u64) -> u64 {
    (now + own) / 4 * 4
}

/// The entry's own TTL, as a restart computes it.
fn own_time(record: &Record) -> Option<u64> {
    let (ends, written) = record.expires_at.zip(record.updated_at)?;
    u64::try_from(ends.duration_since(written).ok()?.as_millis()).ok()
}

fn key_name(key: u8) -> String {
    format!("key {key}")
}

fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(key_name)
}

trait CloseIfOnDisk: Provider {
    /// Closes a store on disk, which ends the work that a dead program left to other threads.
    async fn close_if_on_disk<P: Place>(&self) {
        if !P::PAUSED {
            self.close().await.unwrap();
        }
    }
}

impl<S: Provider> CloseIfOnDisk for S {}

async fn run(place: &impl Place, caching: bool, steps: Vec<Step>) {
    let mut history = History::begin(place, caching).await;
    for step in steps {
        history.take(step).await;
        history.check_memory();
    }
    // At the end, the store works, and memory and store are equal.
    history.land().await;
    history.store.behave();
    while history.map.flush().await.is_err() {}
    history.check_memory();
    history.check_store().await;
    history.land().await;
    history.check_store().await;
}

fn run_in_memory(caching: bool, steps: Vec<Step>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(run(&Memory::new(), caching, steps));
}

fn run_on_disk<P: Place>(place: impl FnOnce(&Path) -> P, caching: bool, steps: Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .unwrap()
        .block_on(run(&place(folder.path()), caching, steps));
}

/// A commit that hung, was given up and repeated, and is applied late changes nothing: not a key
/// that was written again since, not one that was removed, and not a map that was cleared.
#[tokio::test(start_paused = true)]
async fn a_commit_that_hung_and_lands_late_changes_nothing() {
    let (store, clock) = (Faulty::new(Memory::new()), SystemClock::new());
    let map = open(&store, false, &clock).await;
    let hang = store.hang_next();
    map.insert("again", 1, None);
    map.insert("removed", 1, None);
    map.insert("cleared", 1, None);
    map.flush().await.unwrap();
    // The late batch is still the writer's last one, so it is answered as a repeat.
    let landed = hang.land().await;
    assert!(landed[0].is_ok());
    let hang = store.hang_next();
    map.insert("again", 2, None);
    map.insert("removed", 2, None);
    map.flush().await.unwrap();
    map.insert("again", 3, None);
    map.remove("removed");
    map.flush().await.unwrap();
    assert_eq!(late(&hang).await, ErrorKind::Superseded);
    assert_eq!(stored_values::<u64>(store.inner()).await, map.snapshot());
    let hang = store.hang_next();
    map.insert("cleared", 4, None);
    map.flush().await.unwrap();
    map.clear_and_save().await.unwrap();
    assert_eq!(late(&hang).await, ErrorKind::Superseded);
    assert!(stored_values::<u64>(store.inner()).await.is_empty());
}

async fn late(hang: &Hang) -> ErrorKind {
    let mut answers = hang.land().await;
    answers.remove(0).unwrap_err().kind()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_persistent_map_keeps_to_the_model(steps in prop::collection::vec(step(), 1..80)) {
        run_in_memory(false, steps);
    }

    #[test]
    fn a_caching_map_keeps_to_the_model(steps in prop::collection::vec(step(), 1..80)) {
        run_in_memory(true, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    #[cfg(feature = "json")]
    #[test]
    fn maps_in_json_files_keep_to_the_model(
        caching in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run_on_disk(|folder| AsJsonFile(folder.to_owned()), caching, steps);
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn maps_on_sqlite_keep_to_the_model(
        caching in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run_on_disk(|folder| OnSqlite(folder.join("maps.db")), caching, steps);
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn maps_in_postgres_keep_to_the_model(
        caching in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run_on_disk(|_| crate::postgres::Database::fresh(), caching, steps);
    }
}
