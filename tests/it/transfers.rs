//! Transfers between accounts in two maps, while the process is killed: the sum never changes,
//! and acknowledged transfers are not lost.

use std::{
    collections::HashMap,
    os::unix::process::ExitStatusExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use persistify::{
    Batch, Committed, ErrorKind, Expect, Layer, PersistentMap, Provider, Result, RetryPolicy,
    Sqlite, Transaction, async_trait,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::support::{
    as_it_is,
    child::{self, Orders, die, say},
    open,
};

const TASKS: u64 = 16;
const ACCOUNTS: u64 = 6;
const EACH: i64 = 100;
const SUM: i64 = 2 * EACH * 6;

const SECOND: Duration = Duration::from_secs(1);

fn retry() -> RetryPolicy {
    let soon = Duration::from_millis(10);
    let policy = RetryPolicy::default().base_delay(soon);
    policy.max_delay(20 * soon).probe_delay(20 * soon)
}

/// The accounts in two maps, and the number of transfers of each task.
struct Bank<P> {
    store: P,
    accounts: [PersistentMap<i64>; 2],
    done: PersistentMap<u64>,
}

impl<P: Provider + Clone> Bank<P> {
    async fn open(store: P) -> Self {
        let account = |name| {
            open(store.clone(), name, |map| {
                let map = map.batch(5, Duration::from_millis(2));
                map.retry(retry()).commit_timeout(SECOND)
            })
        };
        let accounts = [account("checking").await, account("savings").await];
        let done = open(store.clone(), "done", |map| {
            map.retry(retry()).commit_timeout(SECOND)
        })
        .await;
        let bank = Self {
            store,
            accounts,
            done,
        };
        if bank.accounts[0].is_empty() {
            let mut tx = Transaction::new(&bank.store);
            for (map, n) in bank
                .accounts
                .iter()
                .flat_map(|m| (0..ACCOUNTS).map(move |n| (m, n)))
            {
                tx.insert(map, n.to_string(), EACH);
            }
            tx.commit().await.unwrap();
        }
        bank
    }

    fn sum(&self) -> i64 {
        let maps = self.accounts.iter();
        maps.flat_map(|map| map.iter())
            .map(|(_, value)| value)
            .sum()
    }

    /// Transfers some money, and records this as the task's `n`th transfer. It conflicts if another
    /// task has changed one of the accounts.
    async fn transfer(&self, task: u64, n: u64, dice: &mut SmallRng) -> Result<()> {
        let [from, to] = [dice.random_range(0..2), dice.random_range(0..2)];
        let x = dice.random_range(0..ACCOUNTS);
        let y = (x + dice.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let (x, y) = (x.to_string(), y.to_string());
        let (from, to) = (&self.accounts[from], &self.accounts[to]);
        let amount = dice.random_range(1..50);
        let (had, rich) = from.get_with_revision(&x).unwrap();
        let (has, poor) = to.get_with_revision(&y).unwrap();
        let mut tx = Transaction::new(&self.store);
        tx.insert(from, &x, had - amount)
            .require(from, &x, Expect::At(rich));
        tx.insert(to, &y, has + amount)
            .require(to, &y, Expect::At(poor));
        tx.insert(&self.done, task.to_string(), n);
        tx.commit().await.map(drop)
    }

    async fn close(self) {
        for map in &self.accounts {
            map.close().await.unwrap();
        }
        self.done.close().await.unwrap();
    }
}

/// Opens the store at a place: an address of a server, or a folder.
async fn store(place: &str) -> Arc<dyn Provider> {
    #[cfg(feature = "postgres")]
    if place.starts_with("postgres") {
        return Arc::new(persistify::Postgres::connect(place).await.unwrap());
    }
    Arc::new(Sqlite::open(child::file(place)).await.unwrap())
}

async fn bank_at(place: &str) -> Bank<Arc<dyn Provider>> {
    Bank::open(store(place).await).await
}

/// Whether the transfer was made. Otherwise, another task has changed one of the accounts.
fn transferred(result: &Result<()>) -> bool {
    let Err(error) = result else { return true };
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    false
}

/// Checks the state that a killed process left behind.
async fn check(place: &str, acknowledged: &HashMap<u64, u64>) -> u64 {
    let bank = bank_at(place).await;
    assert_eq!(bank.sum(), SUM);
    let mut done = 0;
    for task in 0..TASKS {
        let found = bank.done.get(task.to_string()).unwrap_or(0);
        let said = acknowledged.get(&task).copied().unwrap_or(0);
        let either = found == said || found == said + 1;
        assert!(either, "task {task}: {said} acknowledged, {found} found");
        done += found;
    }
    bank.close().await;
    done
}

#[test]
fn sixteen_tasks_are_killed_at_any_moment_and_the_sum_never_changes() {
    const TEST: &str =
        "transfers::sixteen_tasks_are_killed_at_any_moment_and_the_sum_never_changes";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(Orders { place, words }) = child::orders() {
        return runtime.block_on(work(&place, words.parse().unwrap()));
    }
    let folder = tempfile::tempdir().unwrap();
    kill_again_and_again(TEST, folder.path().to_str().unwrap(), 15);
}

#[cfg(feature = "postgres")]
#[test]
fn sixteen_tasks_on_postgres_are_killed_and_the_sum_never_changes() {
    const TEST: &str = "transfers::sixteen_tasks_on_postgres_are_killed_and_the_sum_never_changes";
    if let Some(Orders { place, words }) = child::orders() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(work(&place, words.parse().unwrap()));
    }
    let database = crate::postgres::Database::fresh();
    kill_again_and_again(TEST, database.url(), 5);
}

fn kill_again_and_again(test: &str, place: &str, times: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acknowledged = HashMap::new();
    let mut dice = SmallRng::seed_from_u64(11);
    let mut done = 0;
    for seed in 0..times {
        let mercy = Duration::from_millis(dice.random_range(0..200));
        let child = child::spawn(test, place, &seed.to_string());
        child::hear_and_kill(child, "open", mercy, |line| {
            let words: Vec<_> = line.split(' ').collect();
            if let ["moved", task, n] = words[..] {
                acknowledged.insert(task.parse().unwrap(), n.parse().unwrap());
            }
        });
        done = runtime.block_on(check(place, &acknowledged));
        // A transfer may have been committed without being acknowledged.
        acknowledged = runtime.block_on(found(place));
    }
    println!("{done} transfers");
    assert!(done > 8, "{done}");
}

/// The number of transfers of each task.
async fn found(place: &str) -> HashMap<u64, u64> {
    let map: PersistentMap<u64> = open(store(place).await, "done", as_it_is).await;
    let found = map.iter().map(|(task, n)| (task.parse().unwrap(), n));
    let found = found.collect();
    map.close().await.unwrap();
    found
}

/// The child process: makes transfers until it is killed.
async fn work(place: &str, seed: u64) {
    let bank = Arc::new(bank_at(place).await);
    assert_eq!(bank.sum(), SUM);
    say("open");
    let tasks = (0..TASKS).map(|task| {
        let bank = bank.clone();
        let mut dice = SmallRng::seed_from_u64(seed * 100 + task);
        async move {
            let mut n = bank.done.get(task.to_string()).unwrap_or(0) + 1;
            while n < u64::MAX {
                if transferred(&bank.transfer(task, n, &mut dice).await) {
                    say(&format!("moved {task} {n}"));
                    n += 1;
                }
            }
        }
    });
    tasks.collect::<tokio::task::JoinSet<_>>().join_all().await;
}

/// The server is killed and restarted, and the transfers continue.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_killed_again_and_again_and_the_sum_never_changes() {
    use crate::postgres::{Database, Server, Stop};
    use std::sync::atomic::AtomicBool;

    let server = Server::private();
    let database = Database::on(&server);
    let bank = Arc::new(bank_at(database.url()).await);
    let (enough, moved) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let task = |task: u64| {
        let (bank, enough, moved) = (bank.clone(), enough.clone(), moved.clone());
        let mut dice = SmallRng::seed_from_u64(task);
        async move {
            let mut n = 1;
            while !enough.load(SeqCst) {
                match bank.transfer(task, n, &mut dice).await {
                    Err(error) if error.kind() == ErrorKind::Unavailable => {}
                    result if !transferred(&result) => {}
                    _ => {
                        n += 1;
                        moved.fetch_add(1, SeqCst);
                    }
                }
            }
            (task, n - 1)
        }
    };
    let tasks: tokio::task::JoinSet<_> = (0..TASKS).map(task).collect();
    for stop in [Stop::Killed, Stop::Immediate, Stop::Killed] {
        let wanted = moved.load(SeqCst) + 40;
        while moved.load(SeqCst) < wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.restart(stop);
    }
    enough.store(true, SeqCst);
    let acknowledged = tasks.join_all().await.into_iter().collect();
    // Memory adopts the outcome of each commit.
    for map in &bank.accounts {
        while map.flush().await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert_eq!(bank.sum(), SUM);
    let in_memory = bank.accounts.each_ref().map(|map| map.snapshot());
    Arc::into_inner(bank).unwrap().close().await;
    check(database.url(), &acknowledged).await;
    let again = bank_at(database.url()).await;
    assert_eq!(
        again.accounts.each_ref().map(|map| map.snapshot()),
        in_memory
    );
    again.close().await;
}

/// SQLite in a process that dies at a given step: before or after a commit, or a given number of
/// microseconds after the beginning of the last commit.
#[derive(Clone, Debug)]
struct Mortal {
    inner: Sqlite,
    steps: Arc<AtomicU64>,
    last: u64,
    delay: Option<Duration>,
}

impl Mortal {
    fn step(&self) {
        let step = self.steps.fetch_add(1, SeqCst);
        match self.delay {
            None if step == self.last => die(),
            Some(delay) if step == self.last => drop(std::thread::spawn(move || {
                let begun = std::time::Instant::now();
                while begun.elapsed() < delay {}
                die()
            })),
            _ => {}
        }
    }
}

#[async_trait]
impl Layer for Mortal {
    fn inner(&self) -> &dyn Provider {
        &self.inner
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.step();
        let committed = self.inner.commit(batch).await;
        self.step();
        committed
    }
}

#[test]
fn a_transfer_is_killed_at_every_step_and_takes_place_or_not() {
    const TEST: &str = "transfers::a_transfer_is_killed_at_every_step_and_takes_place_or_not";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(Orders { place, words }) = child::orders() {
        return runtime.block_on(transfer_and_die(&place, &words));
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    // The map exists, with all its accounts, before the first kill.
    runtime.block_on(async { bank_at(place).await.close().await });
    let (mut fates, mut kills) = ([0, 0], 0);
    let mut last = 0;
    let steps = (0..100).map(|step| (step, 0));
    let moments = (0..15).map(|n| (u64::MAX, n * 150));
    for (step, micros) in steps.chain(moments) {
        if step != u64::MAX && last != 0 {
            continue;
        }
        // The last commit is the transfer itself.
        let at = if step == u64::MAX { last - 2 } else { step };
        let before = runtime.block_on(found(place));
        let before = before.get(&0).copied().unwrap_or(0);
        let orders = format!("{at} {micros} {}", before + 1);
        let child = child::spawn(TEST, place, &orders);
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let acknowledged = said.contains("moved");
        if ended.status.signal() == Some(9) {
            kills += 1;
        } else {
            let errors = String::from_utf8_lossy(&ended.stderr);
            assert!(ended.status.success() && acknowledged, "{errors}");
            last = if last == 0 { step } else { last };
        }
        let known = HashMap::from([(0, before + u64::from(acknowledged))]);
        let after = runtime.block_on(check(place, &known));
        fates[usize::try_from(after - before).unwrap()] += 1;
    }
    println!("killed {kills} times; not taken place, taken place: {fates:?}");
    assert!(
        last >= 8 && fates[0] > 3 && fates[1] > 1,
        "{last} {fates:?}"
    );
}

/// The child process: makes one transfer, with a change pending in each map.
async fn transfer_and_die(place: &str, orders: &str) {
    let orders: Vec<u64> = orders.split(' ').map(|n| n.parse().unwrap()).collect();
    let [last, micros, n] = orders[..] else {
        panic!("{orders:?}")
    };
    let store = Mortal {
        inner: Sqlite::open(child::file(place)).await.unwrap(),
        steps: Arc::default(),
        last,
        delay: (micros > 0).then(|| Duration::from_micros(micros)),
    };
    let bank = Bank::open(store).await;
    for map in &bank.accounts {
        map.set_batch(1_000, Duration::from_hours(1)).unwrap();
        let _ = map.update("0", |_| ());
        let _ = map.update("1", |_| ());
    }
    let mut tx = Transaction::new(&bank.store);
    for (map, by) in bank.accounts.iter().zip([-7, 7]) {
        tx.insert(map, "0", map.get("0").unwrap() + by);
    }
    tx.insert(&bank.done, "0", n);
    tx.commit().await.unwrap();
    say("moved");
    // If the kill would come later, the process ends here.
    std::process::exit(0);
}
