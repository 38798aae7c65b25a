//! A reshard that is killed again and again, on files.

use std::{collections::BTreeMap, path::Path, time::Duration};

use persistify::{Change, Payload, Sharded, Sqlite};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::records_of;
use crate::support::{
    as_it_is,
    child::{self, Orders, say},
    open, write_as_another,
};

const KILLS: u64 = 25;
const ENTRIES: usize = 3_000;

/// The lists, in the order in which entries move through them.
const LISTS: [&[&str]; 4] = [&["a"], &["a", "b", "c"], &["c", "d"], &["b", "c", "d"]];

async fn stores(folder: &Path, list: &[&str]) -> Sharded {
    let mut shards = Vec::new();
    for name in list {
        let file = folder.join(format!("{name}.db"));
        shards.push((*name, Sqlite::open(file).await.unwrap()));
    }
    Sharded::new(shards).unwrap()
}

/// Finishes the reshards up to the last list; the folder remembers how far it got.
async fn reshard(folder: &Path) {
    for (n, two) in LISTS.windows(2).enumerate() {
        let done = folder.join(format!("done {n}"));
        if done.exists() {
            continue;
        }
        say("moving");
        let (old, new) = (stores(folder, two[0]).await, stores(folder, two[1]).await);
        old.reshard(&new).await.unwrap();
        std::fs::write(done, "").unwrap();
    }
}

#[test]
fn a_reshard_that_is_killed_loses_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    if let Some(Orders { place, .. }) = child::orders() {
        runtime.block_on(reshard(Path::new(&place)));
        child::die();
    }
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let first = stores(folder.path(), LISTS[0]).await;
        let put = |n: usize| Change::put(format!("key {n}"), Payload::json(n.to_string()), None);
        write_as_another(&first, (0..ENTRIES).map(put).collect()).await;
    });
    let test = "layers::sharded::kills::a_reshard_that_is_killed_loses_nothing";
    let mut dice = SmallRng::seed_from_u64(7);
    for seed in 0..KILLS {
        let mercy = Duration::from_millis(dice.random_range(0..60));
        let child = child::spawn(test, folder.path().to_str().unwrap(), &seed.to_string());
        child::hear_and_kill(child, "moving", mercy, |_| {});
    }
    runtime.block_on(check(folder.path()));
}

async fn check(folder: &Path) {
    reshard(folder).await;
    let list = stores(folder, LISTS[LISTS.len() - 1]).await;
    let mut on_shards = BTreeMap::new();
    for name in ["a", "b", "c", "d"] {
        let file = folder.join(format!("{name}.db"));
        for record in records_of(&Sqlite::open(file).await.unwrap()).await {
            assert_eq!(list.shard_of(&record.key), name);
            on_shards.insert(record.key, name);
        }
    }
    assert_eq!(on_shards.len(), ENTRIES);
    let map = open::<usize>(list, "map", as_it_is).await;
    assert!((0..ENTRIES).all(|n| map.get(format!("key {n}")) == Some(n)));
}
