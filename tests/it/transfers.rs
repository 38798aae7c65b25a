//! Money goes from account to account in two maps, and the process is killed:
//! the sum never changes, and what was acknowledged has taken place.

use std::{
    collections::HashMap,
    os::unix::process::ExitStatusExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use persistify::{
    Batch, Capabilities, Committed, ErrorKind, Expect, Load, MapName, PersistentMap, Provider,
    Result, Sqlite, Transaction, Wanted, async_trait,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::children::{self, Orders, die, say};

const TASKS: u64 = 16;
const ACCOUNTS: u64 = 6;
const EACH: i64 = 100;
const SUM: i64 = 2 * EACH * 6;

/// The accounts in two maps, and how many transfers each task has done.
struct Bank<P> {
    store: P,
    accounts: [PersistentMap<i64>; 2],
    done: PersistentMap<u64>,
}

impl<P: Provider + Clone> Bank<P> {
    async fn open(store: P) -> Self {
        let open = |name: &'static str| {
            let map = PersistentMap::builder(store.clone(), name);
            map.batch(5, Duration::from_millis(2)).open()
        };
        let accounts = [open("checking").await, open("savings").await];
        let accounts = accounts.map(Result::unwrap);
        let done = PersistentMap::builder(store.clone(), "done").open().await;
        let done = done.unwrap();
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

    /// Moves some money, and notes that this was the task's `n`th transfer; or
    /// finds that somebody else has touched one of the accounts.
    async fn transfer(&self, task: u64, n: u64, dice: &mut SmallRng) -> bool {
        let [from, to] = [dice.random_range(0..2), dice.random_range(0..2)];
        let [x, y] = [0, 0].map(|_| dice.random_range(0..ACCOUNTS).to_string());
        let (from, to) = (&self.accounts[from], &self.accounts[to]);
        if x == y {
            return false;
        }
        let amount = dice.random_range(1..50);
        let (had, rich) = from.get_with_revision(&x).unwrap();
        let (has, poor) = to.get_with_revision(&y).unwrap();
        let mut tx = Transaction::new(&self.store);
        tx.insert(from, &x, had - amount)
            .expect(from, &x, Expect::At(rich));
        tx.insert(to, &y, has + amount)
            .expect(to, &y, Expect::At(poor));
        tx.insert(&self.done, task.to_string(), n);
        match tx.commit().await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
                false
            }
        }
    }

    async fn close(self) {
        for map in &self.accounts {
            map.close().await.unwrap();
        }
        self.done.close().await.unwrap();
    }
}

async fn open(folder: &Path) -> Bank<Sqlite> {
    Bank::open(Sqlite::open(folder.join("maps.db")).await.unwrap()).await
}

/// Checks what a killed process left behind.
async fn check(folder: &Path, acknowledged: &HashMap<u64, u64>) -> u64 {
    let bank = open(folder).await;
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
    if let Some(Orders { place, words }) = children::orders() {
        return runtime.block_on(work(Path::new(&place), words.parse().unwrap()));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = HashMap::new();
    let mut dice = SmallRng::seed_from_u64(11);
    let mut done = 0;
    for seed in 0..15u64 {
        let mercy = Duration::from_millis(dice.random_range(0..200));
        let place = folder.path().to_str().unwrap();
        let mut child = children::spawn(TEST, place, &seed.to_string());
        let said = children::lines(&mut child);
        std::thread::scope(|scope| {
            let mut alive = Some(&mut child);
            for line in said {
                let words: Vec<_> = line.split(' ').collect();
                if let ["moved", task, n] = words[..] {
                    acknowledged.insert(task.parse().unwrap(), n.parse().unwrap());
                }
                if let Some(child) = alive.take_if(|_| line == "open") {
                    scope.spawn(move || {
                        std::thread::sleep(mercy);
                        child.kill().unwrap();
                    });
                }
            }
        });
        let ended = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(
            ended.status.signal(),
            Some(9),
            "it fell by itself: {errors}"
        );
        done = runtime.block_on(check(folder.path(), &acknowledged));
        for task in 0..TASKS {
            // One that was not acknowledged may have taken place.
            let found = runtime.block_on(found(folder.path(), task));
            acknowledged.insert(task, found);
        }
    }
    println!("{done} transfers");
    assert!(done > 8, "{done}");
}

async fn found(folder: &Path, task: u64) -> u64 {
    let file = Sqlite::open(folder.join("maps.db")).await.unwrap();
    let map: PersistentMap<u64> = PersistentMap::builder(file, "done").open().await.unwrap();
    let found = map.get(task.to_string()).unwrap_or(0);
    map.close().await.unwrap();
    found
}

/// The child: transfers until it is killed.
async fn work(folder: &Path, seed: u64) {
    let bank = Arc::new(open(folder).await);
    assert_eq!(bank.sum(), SUM);
    say("open");
    let tasks = (0..TASKS).map(|task| {
        let bank = bank.clone();
        let mut dice = SmallRng::seed_from_u64(seed * 100 + task);
        async move {
            let mut n = bank.done.get(task.to_string()).unwrap_or(0) + 1;
            while n < u64::MAX {
                if bank.transfer(task, n, &mut dice).await {
                    say(&format!("moved {task} {n}"));
                    n += 1;
                }
            }
        }
    });
    tasks.collect::<tokio::task::JoinSet<_>>().join_all().await;
}

/// SQLite, until a step is reached at which the process dies: before and after
/// each commit, and so many microseconds after the beginning of the last one.
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
impl Provider for Mortal {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn load<'a>(&'a self, map: &'a MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.inner.load(map, wanted).await
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
    if let Some(Orders { place, words }) = children::orders() {
        return runtime.block_on(transfer_and_die(Path::new(&place), &words));
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    // It is there, with all its accounts, before anybody dies.
    runtime.block_on(async { open(folder.path()).await.close().await });
    let (mut fates, mut kills) = ([0, 0], 0);
    let mut last = 0;
    let steps = (0..100).map(|step| (step, 0));
    let moments = (0..15).map(|n| (u64::MAX, n * 150));
    for (step, micros) in steps.chain(moments) {
        if step != u64::MAX && last != 0 {
            continue;
        }
        // The last commit of all is the transfer itself.
        let at = if step == u64::MAX { last - 2 } else { step };
        let before = runtime.block_on(found(folder.path(), 0));
        let orders = format!("{at} {micros} {}", before + 1);
        let child = children::spawn(TEST, place, &orders);
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
        let after = runtime.block_on(check(folder.path(), &known));
        fates[usize::try_from(after - before).unwrap()] += 1;
    }
    println!("killed {kills} times; not taken place, taken place: {fates:?}");
    assert!(
        last >= 8 && fates[0] > 3 && fates[1] > 1,
        "{last} {fates:?}"
    );
}

/// The child: with a change pending in each map, one transfer.
async fn transfer_and_die(folder: &Path, orders: &str) {
    let orders: Vec<u64> = orders.split(' ').map(|n| n.parse().unwrap()).collect();
    let [last, micros, n] = orders[..] else {
        panic!("{orders:?}")
    };
    let store = Mortal {
        inner: Sqlite::open(folder.join("maps.db")).await.unwrap(),
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
    // What is to be killed later than this dies no more.
    std::process::exit(0);
}
