//! Random histories against a plain `HashMap`, and a shadow of what was
//! acknowledged: memory is the model at every step, and after a crash each key
//! holds a state between its last acknowledged and its last written one.

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
    /// A save that nobody waits for: dropped after its first poll.
    Abandon(u8, u64),
    Flush,
    Reload,
    /// Time passes: entries expire, and the map saves by itself.
    Wait(u64),
    /// The next commits, so many, come to this.
    Fail(u8, Failure),
    /// The next commit hangs until the map gives it up.
    Hang,
    /// What hung lands, however late.
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

/// Either map, by the methods that both have.
enum Tested {
    Plain(PersistentMap<u64>),
    Caching(CachingMap<u64>),
}

impl Tested {
    fn snapshot(&self) -> HashMap<String, u64> {
        match self {
            Self::Plain(map) => map.snapshot(),
            Self::Caching(map) => map.snapshot(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Plain(map) => map.len(),
            Self::Caching(map) => map.len(),
        }
    }

    fn get(&self, key: &str) -> Option<u64> {
        match self {
            Self::Plain(map) => map.get(key),
            Self::Caching(map) => map.get(key),
        }
    }

    fn insert(&self, key: &str, value: u64, ttl: Option<Duration>) -> Option<u64> {
        match (self, ttl) {
            (Self::Caching(map), Some(ttl)) => map.insert_with_ttl(key, value, ttl),
            (Self::Plain(map), _) => map.insert(key, value),
            (Self::Caching(map), None) => map.insert(key, value),
        }
    }

    fn update(&self, key: &str, value: u64) -> Option<u64> {
        let change = |old: &mut u64| std::mem::replace(old, value);
        match self {
            Self::Plain(map) => map.update(key, change),
            Self::Caching(map) => map.update(key, change),
        }
    }

    fn remove(&self, key: &str) -> Option<u64> {
        match self {
            Self::Plain(map) => map.remove(key),
            Self::Caching(map) => map.remove(key),
        }
    }

    fn retain(&self, keep: impl FnMut(&str, &u64) -> bool) {
        match self {
            Self::Plain(map) => map.retain(keep),
            Self::Caching(map) => map.retain(keep),
        }
    }

    fn clear(&self) {
        match self {
            Self::Plain(map) => map.clear(),
            Self::Caching(map) => map.clear(),
        }
    }

    async fn insert_and_save(&self, key: &str, value: u64) -> Result<Option<u64>> {
        match self {
            Self::Plain(map) => map.insert_and_save(key, value).await,
            Self::Caching(map) => map.insert_and_save(key, value).await,
        }
    }

    async fn update_and_save(&self, key: &str, value: u64) -> Result<Option<u64>> {
        let change = |old: &mut u64| std::mem::replace(old, value);
        match self {
            Self::Plain(map) => map.update_and_save(key, change).await,
            Self::Caching(map) => map.update_and_save(key, change).await,
        }
    }

    async fn remove_and_save(&self, key: &str) -> Result<Option<u64>> {
        match self {
            Self::Plain(map) => map.remove_and_save(key).await,
            Self::Caching(map) => map.remove_and_save(key).await,
        }
    }

    async fn clear_and_save(&self) -> Result<()> {
        match self {
            Self::Plain(map) => map.clear_and_save().await,
            Self::Caching(map) => map.clear_and_save().await,
        }
    }

    async fn flush(&self) -> Result<()> {
        match self {
            Self::Plain(map) => map.flush().await,
            Self::Caching(map) => map.flush().await,
        }
    }

    async fn reload(&self) -> Result<()> {
        match self {
            Self::Plain(map) => map.reload().await,
            Self::Caching(map) => map.reload().await,
        }
    }

    async fn close(&self) -> Result<()> {
        match self {
            Self::Plain(map) => map.close().await,
            Self::Caching(map) => map.close().await,
        }
    }
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    value: u64,
    /// When it expires, in milliseconds since 1970.
    until: Option<u64>,
    /// The time of its own that an update begins anew.
    own: Option<u64>,
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// When an entry ends that has that time of its own: at a multiple of four
/// milliseconds.
fn end_of(now: u64, own: u64) -> u64 {
    (now + own) / 4 * 4
}

/// What a restart knows of an entry's own time.
fn own_time(record: &Record) -> Option<u64> {
    let (ends, written) = record.expires_at.zip(record.updated_at)?;
    u64::try_from(ends.duration_since(written).ok()?.as_millis()).ok()
}

/// Where a history takes place.
trait Place {
    type Store: Provider;

    /// The store, as whoever starts anew finds it.
    async fn open(&self) -> Self::Store;

    /// Whether time stands still unless everybody waits for it to pass.
    const PAUSED: bool;
}

impl Place for Memory {
    type Store = Self;
    const PAUSED: bool = true;

    async fn open(&self) -> Self {
        self.clone()
    }
}

/// The map under test, the model, and the shadow.
struct History<'a, P: Place> {
    place: &'a P,
    caching: bool,
    clock: SystemClock,
    store: Faulty<P::Store>,
    map: Tested,
    hung: Vec<Hang>,
    /// By key: the last acknowledged state, and all that were written since.
    written: HashMap<String, Vec<Option<Held>>>,
}

fn key_name(key: u8) -> String {
    format!("key {key}")
}

fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(key_name)
}

async fn open<P: Provider>(store: &Faulty<P>, caching: bool, clock: &SystemClock) -> Tested {
    let interval = Duration::from_millis(50);
    let policy = RetryPolicy::default()
        .max_attempts(3)
        .base_delay(Duration::from_millis(2))
        .max_delay(Duration::from_millis(20))
        .probe_delay(Duration::from_millis(20));
    let timeout = Duration::from_millis(200);
    if caching {
        let map = CachingMap::builder(store.clone(), map_name()).clock(clock.clone());
        let map = map.batch(3, interval).retry(policy).commit_timeout(timeout);
        Tested::Caching(map.open().await.unwrap())
    } else {
        let map = PersistentMap::builder(store.clone(), map_name()).clock(clock.clone());
        let map = map.batch(3, interval).retry(policy).commit_timeout(timeout);
        Tested::Plain(map.open().await.unwrap())
    }
}

impl<'a, P: Place> History<'a, P> {
    async fn begin(place: &'a P, caching: bool) -> Self {
        let (store, clock) = (Faulty::new(place.open().await), SystemClock::new());
        Self {
            place,
            caching,
            map: open(&store, caching, &clock).await,
            clock,
            store,
            hung: Vec::new(),
            written: keys().map(|key| (key, vec![None])).collect(),
        }
    }

    fn now(&self) -> u64 {
        millis(self.clock.now())
    }

    fn live(&self, state: Option<Held>) -> Option<Held> {
        let now = self.now();
        state.filter(|held| held.until.is_none_or(|until| now < until))
    }

    fn model(&self, key: &str) -> Option<u64> {
        let last = self.written[key].last();
        self.live(*last.unwrap()).map(|held| held.value)
    }

    fn write(&mut self, key: &str, state: Option<Held>) {
        self.written.get_mut(key).unwrap().push(state);
    }

    fn put(&mut self, key: &str, value: u64, own: Option<u64>) {
        // Less than four count as four.
        let own = own.map(|own| if own == 0 { 0 } else { own.max(4) });
        let until = own.map(|own| end_of(self.now(), own));
        self.write(key, Some(Held { value, until, own }));
    }

    /// An update begins the entry's own time anew.
    fn update(&mut self, key: &str, value: u64) {
        let last = *self.written[key].last().unwrap();
        if let Some(held) = self.live(last) {
            self.put(key, value, held.own);
        }
    }

    fn clear(&mut self) {
        keys().for_each(|key| self.write(&key, None));
    }

    /// What was written up to now: what a flush that begins now covers.
    fn marks(&self) -> HashMap<String, usize> {
        let marks = self.written.iter();
        marks
            .map(|(key, states)| (key.clone(), states.len() - 1))
            .collect()
    }

    fn acknowledge(&mut self, key: &str, mark: usize) {
        self.written.get_mut(key).unwrap().drain(..mark);
    }

    fn acknowledge_all(&mut self, marks: &HashMap<String, usize>) {
        for (key, mark) in marks {
            self.acknowledge(key, *mark);
        }
    }

    fn check_memory(&self) {
        let model = keys().filter_map(|key| Some((key.clone(), self.model(&key)?)));
        let model: HashMap<_, _> = model.collect();
        assert_eq!(self.map.snapshot(), model);
        assert_eq!(self.map.len(), model.len());
        for key in keys() {
            assert_eq!(self.map.get(&key), model.get(&key).copied());
        }
    }

    /// What the store holds now, by key.
    async fn stored(&self) -> HashMap<String, Option<Held>> {
        let records = records(self.store.inner()).await;
        let held = |key: &String| {
            let record = records.get(key)?;
            let value = &record.value.as_ref().unwrap().bytes;
            let held = Held {
                value: serde_json::from_slice(value).unwrap(),
                until: record.expires_at.map(millis),
                own: own_time(record),
            };
            self.live(Some(held))
        };
        keys().map(|key| (key.clone(), held(&key))).collect()
    }

    async fn check_store(&self) {
        for (key, found) in self.stored().await {
            let found = found.map(|held| held.value);
            assert_eq!(found, self.model(&key), "{key} in the store");
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Insert(key, value) => {
                let key = key_name(key);
                assert_eq!(self.map.insert(&key, value, None), self.model(&key));
                self.put(&key, value, None);
            }
            Step::InsertFor(key, value, ms) => {
                let key = key_name(key);
                // Where time is real, it must not run out while we look.
                let ms = if P::PAUSED && ms % 4 > 0 {
                    ms
                } else {
                    3_600_000
                };
                let ttl = Some(Duration::from_millis(ms));
                assert_eq!(self.map.insert(&key, value, ttl), self.model(&key));
                self.put(&key, value, self.caching.then_some(ms));
            }
            Step::Update(key, value) => {
                let key = key_name(key);
                assert_eq!(self.map.update(&key, value), self.model(&key));
                self.update(&key, value);
            }
            Step::Remove(key) => {
                let key = key_name(key);
                assert_eq!(self.map.remove(&key), self.model(&key));
                self.write(&key, None);
            }
            Step::Retain(bits) => {
                let goes = |value: u64| (value ^ bits).count_ones().is_multiple_of(2);
                self.map.retain(|_, value| !goes(*value));
                for key in keys()
                    .filter(|key| self.model(key).is_some_and(goes))
                    .collect::<Vec<_>>()
                {
                    self.write(&key, None);
                }
            }
            Step::Clear => {
                self.map.clear();
                self.clear();
            }
            Step::Wait(ms) => {
                let ms = if P::PAUSED { ms } else { ms / 20 };
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            Step::Fail(n, failure) => self.store.fail_next(n.into(), failure.fault()),
            Step::Hang => self.hung.push(self.store.hang_next()),
            Step::Land => self.land().await,
            Step::Reopen { close } => self.reopen(close).await,
            saving => self.save(saving).await,
        }
    }

    async fn save(&mut self, step: Step) {
        match step {
            Step::InsertAndSave(key, value) => {
                let (key, old) = (key_name(key), self.model(&key_name(key)));
                self.put(&key, value, None);
                let saved = self.map.insert_and_save(&key, value).await;
                self.saved(&key, old, &saved);
            }
            Step::UpdateAndSave(key, value) => {
                let (key, old) = (key_name(key), self.model(&key_name(key)));
                self.update(&key, value);
                let saved = self.map.update_and_save(&key, value).await;
                self.saved(&key, old, &saved);
            }
            Step::RemoveAndSave(key) => {
                let (key, old) = (key_name(key), self.model(&key_name(key)));
                self.write(&key, None);
                let saved = self.map.remove_and_save(&key).await;
                self.saved(&key, old, &saved);
            }
            Step::Abandon(key, value) => {
                let key = key_name(key);
                self.put(&key, value, None);
                let mut save = Box::pin(self.map.insert_and_save(&key, value));
                assert!(futures_util::poll!(&mut save).is_pending());
            }
            Step::ClearAndSave => {
                self.clear();
                let saved = self.map.clear_and_save().await;
                self.saved_all(saved).await;
            }
            Step::Flush => {
                let flushed = self.map.flush().await;
                self.saved_all(flushed).await;
            }
            Step::Reload => {
                let reloaded = self.map.reload().await;
                self.saved_all(reloaded).await;
            }
            other => unreachable!("{other:?} is no save"),
        }
    }

    /// There is one writer: whatever was written by now was written before.
    fn saved(&mut self, key: &str, old: Option<u64>, saved: &Result<Option<u64>>) {
        if let Ok(replaced) = *saved {
            assert_eq!(replaced, old);
            let mark = self.marks()[key];
            self.acknowledge(key, mark);
        }
    }

    async fn saved_all(&mut self, saved: Result<()>) {
        if saved.is_ok() {
            self.acknowledge_all(&self.marks());
            self.check_store().await;
        }
    }

    /// Fenced: what comes in late was applied in its turn, or is refused, or it
    /// is the very batch that is still to come.
    async fn land(&mut self) {
        for hang in &self.hung {
            for answer in hang.land().await {
                let refused = answer.err().map(|error| error.kind());
                assert!(refused.is_none_or(|kind| kind == ErrorKind::Superseded));
            }
        }
    }

    async fn reopen(&mut self, close: bool) {
        if close && self.map.close().await.is_ok() {
            self.acknowledge_all(&self.marks());
        }
        // Otherwise, a crash. What hung in the dead program lands before
        // another one begins, or never.
        self.land().await;
        self.hung.clear();
        let idle = Faulty::new(Memory::new());
        self.map = open(&idle, self.caching, &self.clock).await;
        settle().await;
        self.store.inner().close_if_on_disk::<P>().await;
        self.store = Faulty::new(self.place.open().await);
        let found = self.stored().await;
        self.map = open(&self.store, self.caching, &self.clock).await;
        for (key, found) in found {
            let states = &self.written[&key];
            let fits = states.iter().any(|state| self.is_same(*state, found));
            assert!(
                fits,
                "{key} came back as {found:?}; it may be any of {states:?}"
            );
            self.written.insert(key, vec![found]);
        }
    }

    fn is_same(&self, state: Option<Held>, found: Option<Held>) -> bool {
        let slack = if P::PAUSED { 0 } else { 1_000 };
        match (self.live(state), found) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                let ends = |held: Held| held.until.unwrap_or(u64::MAX);
                a.value == b.value && ends(a).abs_diff(ends(b)) <= slack
            }
            _ => false,
        }
    }
}

trait CloseIfOnDisk: Provider {
    /// What a dead program had on its way in another thread is over by then.
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
    // At the end everything is well, and memory and store agree.
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

#[cfg(feature = "json")]
struct AsJsonFile(std::path::PathBuf);

#[cfg(feature = "json")]
impl Place for AsJsonFile {
    type Store = persistify::JsonFile;
    const PAUSED: bool = false;

    async fn open(&self) -> persistify::JsonFile {
        let files = persistify::JsonFile::builder(&self.0).max_journal(1_024);
        files.open().await.unwrap()
    }
}

#[cfg(feature = "sqlite")]
struct OnSqlite(std::path::PathBuf);

#[cfg(feature = "sqlite")]
impl Place for OnSqlite {
    type Store = persistify::Sqlite;
    const PAUSED: bool = false;

    async fn open(&self) -> persistify::Sqlite {
        persistify::Sqlite::open(&self.0).await.unwrap()
    }
}

#[cfg(feature = "postgres")]
impl Place for crate::postgres::Database {
    type Store = persistify::Postgres;
    const PAUSED: bool = false;

    async fn open(&self) -> persistify::Postgres {
        persistify::Postgres::connect(self.url()).await.unwrap()
    }
}

/// A commit that hung, was given up by the map and sent again, and lands late
/// changes nothing: not the key that was written again since, not the one that
/// was removed, and not the map that was cleared.
#[tokio::test(start_paused = true)]
async fn a_commit_that_hung_and_lands_late_changes_nothing() {
    let (store, clock) = (Faulty::new(Memory::new()), SystemClock::new());
    let map = open(&store, false, &clock).await;
    let hang = store.hang_next();
    map.insert("again", 1, None);
    map.insert("removed", 1, None);
    map.insert("cleared", 1, None);
    map.flush().await.unwrap();
    // The very batch, while it is the last one: answered as before.
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
