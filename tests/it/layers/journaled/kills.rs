//! Kills at random moments, while the remote is there and while it is not: everything
//! acknowledged arrives, with the newest value of each key.
//!
//! The test binary runs itself as a child, which announces each write and its acknowledgement.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use persistify::{Journaled, PersistentMap, Provider, ProviderExt};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::support::{
    child::{self, Orders, say},
    stored_values,
};

const KEYS: u64 = 6;

/// The remote of a test.
trait Remote {
    const KILLS: u64;
    const MAX_MILLIS: u64;

    /// Called once the child has opened its map.
    fn opened(&self, _life: u64) {}

    /// Called once the child is dead.
    fn killed(&self) {}
}

async fn connect(place: &str) -> persistify::Result<Arc<dyn Provider>> {
    #[cfg(feature = "postgres")]
    if place.starts_with("postgres:") {
        let url = place.split(' ').next().unwrap();
        return Ok(Arc::new(persistify::Postgres::connect(url).await?));
    }
    #[cfg(feature = "sqlite")]
    return Ok(Arc::new(
        persistify::Sqlite::open(child::file(place)).await?,
    ));
    #[cfg(not(feature = "sqlite"))]
    unreachable!("{place}")
}

fn spool(place: &str) -> std::path::PathBuf {
    Path::new(place.split(' ').next_back().unwrap()).join("spool")
}

#[tokio::main]
async fn work(place: &str, seed: u64) {
    say("opening");
    let map = loop {
        if let Ok(map) = open(place).await {
            break map;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for (key, value) in &map {
        say(&format!("found {key} {value}"));
    }
    say("opened");
    let tasks = (0..KEYS).map(|key| {
        let (map, mut dice) = (map.clone(), SmallRng::seed_from_u64(seed * KEYS + key));
        tokio::spawn(async move {
            for n in 1_u64.. {
                let value = seed * 1_000_000 + n;
                say(&format!("write {key} {value}"));
                map.insert_and_save(key.to_string(), value).await.unwrap();
                say(&format!("saved {key} {value}"));
                if dice.random_bool(0.1) {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn open(place: &str) -> persistify::Result<PersistentMap<u64>> {
    let store = connect(place).await?.layer(Journaled::new(spool(place)));
    PersistentMap::builder(store, "map").open().await
}

/// By key: the last acknowledged state, and those written since.
#[derive(Default)]
struct Shadow {
    written: BTreeMap<String, Vec<Option<u64>>>,
    found: BTreeMap<String, u64>,
    acknowledged: u64,
}

impl Shadow {
    fn hear(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["opening"] => self.found.clear(),
            ["found", key, value] => _ = self.found.insert(key.into(), value.parse().unwrap()),
            ["opened"] => self.check(),
            ["write", key, value] => {
                let states = self.written.entry(key.into()).or_insert_with(|| vec![None]);
                states.push(value.parse().ok());
            }
            ["saved", key, value] => {
                self.acknowledged += 1;
                let states = self.written.get_mut(key).unwrap();
                let saved = states.iter().position(|state| *state == value.parse().ok());
                states.drain(..saved.unwrap());
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        for (key, states) in &mut self.written {
            let found = self.found.remove(key);
            assert!(
                states.contains(&found),
                "{key} is {found:?}; acknowledged and written since: {states:?}"
            );
            *states = vec![found];
        }
        assert!(self.found.is_empty(), "from nowhere: {:?}", self.found);
    }
}

fn survive<R: Remote>(test: &str, place: &str, remote: &R) {
    let (mut shadow, mut dice) = (Shadow::default(), SmallRng::seed_from_u64(11));
    for life in 0..R::KILLS {
        let mercy = Duration::from_millis(dice.random_range(0..R::MAX_MILLIS));
        let child = child::spawn(test, place, &life.to_string());
        let word = if life % 3 == 0 { "opening" } else { "opened" };
        child::hear_and_kill(child, word, mercy, |line| {
            shadow.hear(line);
            if line == "opened" {
                remote.opened(life);
            }
        });
        remote.killed();
    }
    println!("{} acknowledged", shadow.acknowledged);
    assert!(
        shadow.acknowledged > R::KILLS * 5,
        "{}",
        shadow.acknowledged
    );
    shadow.found = drained(place);
    shadow.check();
}

/// What the remote has once the journal is drained.
#[tokio::main(flavor = "current_thread")]
async fn drained(place: &str) -> BTreeMap<String, u64> {
    let remote = connect(place).await.unwrap();
    let store = remote.clone().layer(Journaled::new(spool(place)));
    store.drain().await.unwrap();
    let left = store.stats();
    assert!(
        left.values()
            .all(|state| state.batches == 0 && state.set_aside == 0),
        "{left:?}"
    );
    stored_values(&*remote).await.into_iter().collect()
}

#[cfg(feature = "sqlite")]
mod over_sqlite {
    use super::{Orders, Remote, child, survive, work};

    struct OnDisk;

    impl Remote for OnDisk {
        const KILLS: u64 = 40;
        const MAX_MILLIS: u64 = 150;
    }

    #[test]
    fn a_journal_over_sqlite_survives_kills() {
        let test = "layers::journaled::kills::over_sqlite::a_journal_over_sqlite_survives_kills";
        if let Some(Orders { place, words }) = child::orders() {
            return work(&place, words.parse().unwrap());
        }
        let folder = tempfile::tempdir().unwrap();
        survive(test, folder.path().to_str().unwrap(), &OnDisk);
    }
}

#[cfg(feature = "postgres")]
mod over_postgres {
    use std::cell::Cell;

    use super::{Orders, Remote, child, survive, work};
    use crate::postgres::{Database, Server, Stop};

    /// A server that is stopped in every second life, and started again after it.
    struct Outages {
        server: Server,
        is_stopped: Cell<bool>,
    }

    impl Remote for Outages {
        const KILLS: u64 = 16;
        const MAX_MILLIS: u64 = 700;

        fn opened(&self, life: u64) {
            if life % 2 == 1 {
                let stop = [Stop::Fast, Stop::Killed, Stop::Immediate];
                self.server
                    .stop(stop[usize::try_from(life / 2 % 3).unwrap()]);
                self.is_stopped.set(true);
            }
        }

        fn killed(&self) {
            if self.is_stopped.take() {
                self.server.start();
            }
        }
    }

    #[test]
    fn a_journal_over_postgres_survives_kills_and_outages() {
        let test = "layers::journaled::kills::over_postgres::a_journal_over_postgres_survives_kills_and_outages";
        if let Some(Orders { place, words }) = child::orders() {
            return work(&place, words.parse().unwrap());
        }
        let folder = tempfile::tempdir().unwrap();
        let server = Server::private();
        let database = Database::on(&server);
        let is_stopped = Cell::default();
        let remote = Outages { server, is_stopped };
        let place = format!("{} {}", database.url(), folder.path().display());
        survive(test, &place, &remote);
    }
}
