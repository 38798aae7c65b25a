//! Random histories of two maps on one store, through failures of every kind.
//!
//! The invariants after both have flushed and reloaded, whichever won: the store and both
//! memories agree, and nothing is pending. Every value is the list of the tokens that were
//! appended to it, so it shows its own history:
//!
//! - where the store wins, a token whose save was `Ok` stays in the store (until a process that
//!   has seen it removes it): a process never overwrites a value it has not seen;
//! - where values are merged, the store has every token, saved or not;
//! - a token whose conditional commit failed without effect is never in the store, and neither
//!   is a token of half a commit.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use persistify::{Expect, Result, RetryPolicy, Revision, Transaction, testing::Method};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;

type Tokens = Vec<u64>;
type Process = PersistentMap<Tokens>;
type Way = Faulty<Arc<dyn Provider>>;

const KEYS: u32 = 3;
const STEPS: u64 = 80;

#[derive(Clone, Copy)]
struct Kind {
    removals: bool,
    honest: bool,
}

fn union() -> OnConflict<Tokens> {
    OnConflict::merge(|mut mine: Tokens, theirs| {
        let new: Vec<_> = theirs.into_iter().filter(|t| !mine.contains(t)).collect();
        mine.extend(new);
        mine
    })
}

/// The written tokens, and the saves in flight.
#[derive(Default)]
struct Written {
    all: Vec<(String, u64)>,
    saving: Vec<tokio::task::JoinHandle<Outcome>>,
    /// Conditional commits, by process.
    on_condition: [Vec<tokio::task::JoinHandle<Outcome>>; 2],
}

impl Written {
    /// Whether a conditional commit of the process is in flight. A write to memory during that
    /// commit would be the later one, and would replace the tokens of the commit.
    fn is_busy(&self, who: usize) -> bool {
        let mut commits = self.on_condition[who].iter();
        commits.any(|commit| !commit.is_finished())
    }
}

/// The tokens of a save, by key, as far as their outcome is known.
#[derive(Default)]
struct Outcome {
    saved: Vec<(String, u64)>,
    never: Vec<(String, u64)>,
}

impl Outcome {
    fn of(tokens: Vec<(String, u64)>, result: Result<()>) -> Self {
        let (mut saved, mut never) = (Vec::new(), Vec::new());
        match result {
            Ok(()) => saved = tokens,
            Err(error) if error.may_have_applied() => {}
            Err(_) => never = tokens,
        }
        Self { saved, never }
    }
}

/// The value and the condition of a save that appends a token to the known entry.
fn appended(map: &Process, key: &str, token: u64) -> (Tokens, Expect) {
    let (mut tokens, seen) = map.get_with_revision(key).unwrap_or_default();
    tokens.push(token);
    let expect = match seen {
        Revision::ZERO => Expect::Absent,
        seen => Expect::At(seen),
    };
    (tokens, expect)
}

/// Appends a token if the entry is unchanged since it was read.
async fn append_if(map: Process, key: String, token: u64) -> Outcome {
    let (tokens, expect) = appended(&map, &key, token);
    let saved = map.save_if(&key, tokens, expect).await;
    Outcome::of(vec![(key, token)], saved.map(drop))
}

/// Appends a token to all keys or to none, if they are unchanged since they were read.
async fn append_to_all(map: Process, way: Option<Way>, token: u64) -> Outcome {
    let keys: Vec<_> = (0..KEYS).map(|n| format!("k{n}")).collect();
    let steps = keys.iter().map(|key| (key, appended(&map, key, token)));
    let done = match way {
        None => {
            let mut batch = map.batch();
            for (key, (tokens, expect)) in steps {
                batch.insert(key, tokens).require(key, expect);
            }
            batch.commit().await
        }
        Some(way) => {
            let mut tx = Transaction::new(&way);
            for (key, (tokens, expect)) in steps {
                tx.insert(&map, key, tokens).require(&map, key, expect);
            }
            tx.commit().await
        }
    };
    let tokens = keys.into_iter().map(|key| (key, token));
    Outcome::of(tokens.collect(), done.map(drop))
}

/// Appends a token, and returns whether it was saved.
async fn append_and_save(map: Process, key: String, token: u64) -> Outcome {
    let appended = map.update_and_save(&key, |tokens| tokens.push(token)).await;
    let saved = match appended {
        Ok(Some(())) => true,
        Ok(None) => matches!(map.try_insert_and_save(&key, vec![token]).await, Ok(Ok(()))),
        Err(_) => false,
    };
    Outcome {
        saved: saved.then_some((key, token)).into_iter().collect(),
        never: Vec::new(),
    }
}

/// Makes the next calls fail. If `honest`, a commit that may have been applied is not reported as
/// refused.
fn fail(dice: &mut SmallRng, way: &Way, honest: bool) {
    let unavailable = ErrorKind::Unavailable;
    let fault = match dice.random_range(0..4) {
        0 => Fault::Before(unavailable),
        1 => Fault::Lost(unavailable),
        _ => Fault::After(unavailable),
    };
    let times = dice.random_range(1..3);
    way.fail_next(times, fault);
    match dice.random_range(0..4) {
        0 | 1 if honest => {}
        0 => way.fail_nth(times + 1, Fault::Before(ErrorKind::Superseded)),
        1 => way.fail_nth(times + 1, Fault::Before(ErrorKind::Refused)),
        2 => way.fail_next_of(Method::Load, 1, Fault::Before(unavailable)),
        _ => {}
    }
}

async fn step(
    dice: &mut SmallRng,
    (who, map, way): (usize, &Process, &Way),
    token: u64,
    kind: Kind,
    written: &mut Written,
) {
    let Kind { removals, honest } = kind;
    let key = format!("k{}", dice.random_range(0..KEYS));
    match dice.random_range(0..27) {
        0..11 if written.is_busy(who) => {}
        0..7 => {
            map.upsert(&key, vec![token], |tokens| tokens.push(token));
            written.all.push((key, token));
        }
        7..11 => {
            let save = append_and_save(map.clone(), key.clone(), token);
            written.saving.push(tokio::spawn(save));
        }
        11..14 => drop(map.flush().await),
        14 => drop(map.reload().await),
        15 if removals => drop(map.remove(&key)),
        16 if removals => map.clear(),
        17 => drop(map.retry_refused()),
        18..22 => {
            let save = append_if(map.clone(), key.clone(), token);
            written.on_condition[who].push(tokio::spawn(save));
        }
        22..24 => {
            let way = dice.random_bool(0.5).then(|| way.clone());
            let save = append_to_all(map.clone(), way, token);
            written.on_condition[who].push(tokio::spawn(save));
        }
        _ => fail(dice, way, honest),
    }
    for _ in 0..dice.random_range(0..40) {
        tokio::task::yield_now().await;
    }
}

async fn open_tokens(way: &Way, policy: OnConflict<Tokens>, delay: Duration) -> Process {
    let retry = RetryPolicy::default().max_attempts(2);
    let retry = retry.base_delay(delay / 10).max_delay(delay);
    let retry = retry.probe_delay(delay);
    crate::support::open(way.clone(), "map", |map| {
        let map = map.retry(retry).batch(4, delay).conflicts(policy);
        map.commit_timeout(Duration::MAX)
    })
    .await
}

async fn flush_at_last(map: &Process, way: &Way) {
    way.behave();
    // The map may have been down, and only finds out now that the store is up.
    while map.flush().await.is_err() {
        map.retry_refused();
    }
}

fn sorted(map: &Process) -> BTreeMap<String, Tokens> {
    map.snapshot().into_iter().collect()
}

/// Runs a history, checks its invariants, and returns the number of conflicts.
async fn history(
    store: Arc<dyn Provider>,
    policy: fn() -> OnConflict<Tokens>,
    (seed, kind): (u64, Kind),
    delay: Duration,
) -> Result<u64> {
    let mut dice = SmallRng::seed_from_u64(seed);
    let ways = [Faulty::new(store.clone()), Faulty::new(store.clone())];
    let maps = [
        open_tokens(&ways[0], policy(), delay).await,
        open_tokens(&ways[1], policy(), delay).await,
    ];
    let mut written = Written::default();
    for token in 0..STEPS {
        let who = dice.random_range(0..2);
        let process = (who, &maps[who], &ways[who]);
        step(&mut dice, process, token, kind, &mut written).await;
    }
    for (map, way) in maps.iter().zip(&ways) {
        flush_at_last(map, way).await;
    }
    let (mut saved, mut never) = (Vec::new(), Vec::new());
    let conditional = written.on_condition.into_iter().flatten();
    for save in written.saving.into_iter().chain(conditional) {
        let outcome = save.await.unwrap();
        saved.extend(outcome.saved);
        never.extend(outcome.never);
    }
    // A save may have inserted the key if it could not append.
    for (map, way) in maps.iter().zip(&ways) {
        flush_at_last(map, way).await;
    }
    for map in &maps {
        map.reload().await?;
        assert_eq!((map.pending(), map.stats().refused), (0, 0), "{seed}");
    }
    let stored: BTreeMap<_, _> = crate::support::stored_values::<Tokens>(&*store)
        .await
        .into_iter()
        .collect();
    assert_eq!(stored, sorted(&maps[0]), "{seed}");
    assert_eq!(stored, sorted(&maps[1]), "{seed}");
    let merges = matches!(policy(), OnConflict::MergeWith(_));
    let noticed = !matches!(policy(), OnConflict::LastWrite);
    if kind.honest {
        for (key, token) in never {
            let tokens = stored.get(&key);
            let is_there = tokens.is_some_and(|tokens| tokens.contains(&token));
            assert!(!is_there, "{seed}: {token} of {key}");
        }
    }
    if noticed && !kind.removals {
        let must = if merges { written.all } else { Vec::new() };
        for (key, token) in must.into_iter().chain(saved) {
            assert!(
                stored[&key].contains(&token),
                "{seed}, honest: {}, {:?}: {token} of {key}",
                kind.honest,
                policy()
            );
        }
    }
    let conflicts = maps.iter().map(|map| map.stats().conflicts).sum();
    for map in &maps {
        map.close().await?;
    }
    Ok(conflicts)
}

const ALL: [fn() -> OnConflict<Tokens>; 3] =
    [|| OnConflict::LastWrite, || OnConflict::StoreWins, union];

pub(crate) async fn histories<P: Provider>(times: u64, delay: Duration, open: impl AsyncFn() -> P) {
    let mut conflicts = 0;
    for seed in 0..times {
        for policy in ALL {
            for (removals, honest) in [(false, true), (true, true), (false, false), (true, false)] {
                let store = Arc::new(open().await);
                let kind = Kind { removals, honest };
                conflicts += history(store, policy, (seed, kind), delay).await.unwrap();
            }
        }
    }
    assert!(conflicts > times, "{conflicts} in {times}");
}

#[tokio::test(start_paused = true)]
async fn two_maps_agree_in_memory() {
    histories(60, SECOND, async || Memory::new()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(start_paused = true)]
async fn two_maps_agree_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    histories(3, SECOND, async || {
        let file = folder.path().join(count.fetch_add(1, SeqCst).to_string());
        persistify::Sqlite::open(file).await.unwrap()
    })
    .await;
}

/// Only one process may open a folder, but it may open the map twice.
#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn two_maps_agree_in_json_files() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    histories(3, SECOND, async || {
        let inner = folder.path().join(count.fetch_add(1, SeqCst).to_string());
        persistify::JsonFile::open(inner).await.unwrap()
    })
    .await;
}
