//! Random histories of two maps on one store, through failures of every kind.
//!
//! What holds after both have flushed and reloaded, whoever won: the store and
//! both memories agree, and nothing is pending. Every value is the list of the
//! tokens that were appended to it, so it tells what it was made of:
//!
//! - where the store wins, a token whose save was `Ok` is in the store for good
//!   (until somebody who has seen it removes it): nobody overwrites what they
//!   have not seen;
//! - where values are merged, every token is, saved or not.

use std::{collections::BTreeMap, sync::Arc};

use persistify::{Result, RetryPolicy, testing::Method};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;

type Tokens = Vec<u64>;
type Process = PersistentMap<Tokens>;
type Way = Faulty<Arc<dyn Provider>>;

const KEYS: u32 = 3;
const STEPS: u64 = 60;

fn union() -> OnConflict<Tokens> {
    OnConflict::merge(|mut mine: Tokens, theirs| {
        let new: Vec<_> = theirs.into_iter().filter(|t| !mine.contains(t)).collect();
        mine.extend(new);
        mine
    })
}

/// What was written, and what was acknowledged of that.
#[derive(Default)]
struct Written {
    all: Vec<(String, u64)>,
    saving: Vec<tokio::task::JoinHandle<Option<(String, u64)>>>,
}

/// Appends, and says whether that was saved.
async fn append_and_save(map: Process, key: String, token: u64) -> Option<(String, u64)> {
    let appended = map.update_and_save(&key, |tokens| tokens.push(token)).await;
    let saved = match appended {
        Ok(Some(())) => true,
        Ok(None) => matches!(map.try_insert_and_save(&key, vec![token]).await, Ok(Ok(()))),
        Err(_) => false,
    };
    saved.then_some((key, token))
}

fn fail(dice: &mut SmallRng, way: &Way) {
    let unavailable = ErrorKind::Unavailable;
    let fault = match dice.random_range(0..4) {
        0 => Fault::Before(unavailable),
        1 => Fault::Lost(unavailable),
        _ => Fault::After(unavailable),
    };
    let times = dice.random_range(1..3);
    way.fail_next(times, fault);
    match dice.random_range(0..4) {
        0 => way.fail_nth(times + 1, Fault::Before(ErrorKind::Superseded)),
        1 => way.fail_nth(times + 1, Fault::Before(ErrorKind::Refused)),
        2 => way.fail_next_of(Method::Load, 1, Fault::Before(unavailable)),
        _ => {}
    }
}

async fn step(
    dice: &mut SmallRng,
    (map, way): (&Process, &Way),
    (token, removals): (u64, bool),
    written: &mut Written,
) {
    let key = format!("k{}", dice.random_range(0..KEYS));
    match dice.random_range(0..20) {
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
        _ => fail(dice, way),
    }
    for _ in 0..dice.random_range(0..40) {
        tokio::task::yield_now().await;
    }
}

async fn open_tokens(way: &Way, policy: OnConflict<Tokens>) -> Process {
    let retry = RetryPolicy::default().max_attempts(2).max_delay(SECOND);
    let map = PersistentMap::builder(way.clone(), "map").retry(retry);
    let map = map.batch(4, SECOND).conflicts(policy);
    map.commit_timeout(std::time::Duration::MAX)
        .open()
        .await
        .unwrap()
}

async fn flush_at_last(map: &Process, way: &Way) {
    way.behave();
    // It may be down, and find out only now that it is not any more.
    while map.flush().await.is_err() {
        map.retry_refused();
    }
}

fn sorted(map: &Process) -> BTreeMap<String, Tokens> {
    map.snapshot().into_iter().collect()
}

/// What the store has in the end, and what it must have.
async fn history(
    store: Arc<dyn Provider>,
    policy: fn() -> OnConflict<Tokens>,
    seed: u64,
    removals: bool,
) -> Result<u64> {
    let mut dice = SmallRng::seed_from_u64(seed);
    let ways = [Faulty::new(store.clone()), Faulty::new(store.clone())];
    let maps = [
        open_tokens(&ways[0], policy()).await,
        open_tokens(&ways[1], policy()).await,
    ];
    let mut written = Written::default();
    for token in 0..STEPS {
        let who = dice.random_range(0..2);
        let process = (&maps[who], &ways[who]);
        step(&mut dice, process, (token, removals), &mut written).await;
    }
    for (map, way) in maps.iter().zip(&ways) {
        flush_at_last(map, way).await;
    }
    let mut saved = Vec::new();
    for save in written.saving {
        saved.extend(save.await.unwrap());
    }
    // A save may have inserted what it could not append to.
    for (map, way) in maps.iter().zip(&ways) {
        flush_at_last(map, way).await;
    }
    for map in &maps {
        map.reload().await?;
        assert_eq!((map.pending(), map.stats().refused), (0, 0), "{seed}");
    }
    let stored: BTreeMap<_, _> = crate::stored::stored::<Tokens>(&*store)
        .await
        .into_iter()
        .collect();
    assert_eq!(stored, sorted(&maps[0]), "{seed}");
    assert_eq!(stored, sorted(&maps[1]), "{seed}");
    let merges = matches!(policy(), OnConflict::MergeWith(_));
    let noticed = !matches!(policy(), OnConflict::LastWrite);
    if noticed && !removals {
        let must = if merges { written.all } else { Vec::new() };
        for (key, token) in must.into_iter().chain(saved) {
            assert!(stored[&key].contains(&token), "{seed}: {token} of {key}");
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

async fn histories<P: Provider>(times: u64, open: impl AsyncFn() -> P) {
    let mut conflicts = 0;
    for seed in 0..times {
        for policy in ALL {
            for removals in [false, true] {
                let store = Arc::new(open().await);
                conflicts += history(store, policy, seed, removals).await.unwrap();
            }
        }
    }
    assert!(conflicts > times, "{conflicts} in {times}");
}

#[tokio::test(start_paused = true)]
async fn two_maps_agree_in_memory() {
    histories(60, async || Memory::new()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(start_paused = true)]
async fn two_maps_agree_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    histories(3, async || {
        let file = folder.path().join(count.fetch_add(1, SeqCst).to_string());
        persistify::Sqlite::open(file).await.unwrap()
    })
    .await;
}

/// A folder is one process's; but that may have the map open twice.
#[cfg(feature = "json")]
#[tokio::test(start_paused = true)]
async fn two_maps_agree_in_json_files() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    histories(3, async || {
        let inner = folder.path().join(count.fetch_add(1, SeqCst).to_string());
        persistify::JsonFile::open(inner).await.unwrap()
    })
    .await;
}
