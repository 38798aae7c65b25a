//! 16 tasks transfer money between two maps while their process is killed; the sum stays the same.

use std::{env, path::Path, process::Command, time::Duration};

use persistify::{ErrorKind, Expect, PersistentMap, Result, Sqlite, Transaction};

const ACCOUNTS: usize = 50;

/// The file, and the accounts in two maps of it.
type Bank = (Sqlite, [PersistentMap<i64>; 2]);

async fn open(db: &Path) -> Result<Bank> {
    let file = Sqlite::open(db).await?;
    let checking = PersistentMap::builder(file.clone(), "checking").open();
    let savings = PersistentMap::builder(file.clone(), "savings").open();
    let maps = [checking.await?, savings.await?];
    if maps[0].is_empty() {
        let mut opening = Transaction::new(&file);
        for n in 0..ACCOUNTS {
            opening.insert(&maps[0], n.to_string(), 100);
            opening.insert(&maps[1], n.to_string(), 100);
        }
        opening.commit().await?;
    }
    Ok((file, maps))
}

/// Transfers 1, unless one of the accounts has changed since it was read.
async fn transfer((file, [checking, savings]): &Bank, from: usize, to: usize) -> Result<()> {
    let (from, to) = (from.to_string(), to.to_string());
    let (had, rich) = checking.get_with_revision(&from).unwrap_or_default();
    let (has, poor) = savings.get_with_revision(&to).unwrap_or_default();
    let mut tx = Transaction::new(file);
    tx.insert(checking, &from, had - 1);
    tx.require(checking, &from, Expect::At(rich));
    tx.insert(savings, &to, has + 1);
    tx.require(savings, &to, Expect::At(poor));
    match tx.commit().await {
        Err(error) if error.kind() != ErrorKind::Conflict => Err(error),
        _ => Ok(()),
    }
}

/// Transfers money until the process is killed.
async fn work(db: &Path) -> Result<()> {
    let bank = open(db).await?;
    let work = |task: usize| {
        let bank = bank.clone();
        async move {
            for n in task.. {
                transfer(&bank, n * 7 % ACCOUNTS, n * 3 % ACCOUNTS).await?;
            }
            Ok(())
        }
    };
    let tasks: tokio::task::JoinSet<_> = (0..16).map(work).collect();
    tasks.join_all().await.into_iter().collect()
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    if let Some(db) = env::args().nth(1) {
        return Ok(work(Path::new(&db)).await?);
    }
    let folder = tempfile::tempdir()?;
    let db = folder.path().join("bank.db");
    for life in 1..=5 {
        let mut child = Command::new(env::current_exe()?).arg(&db).spawn()?;
        tokio::time::sleep(Duration::from_millis(100 * life)).await;
        child.kill()?;
        child.wait()?;
        let (_, [checking, savings]) = open(&db).await?;
        let [one, two] = [&checking, &savings].map(|map| map.iter().map(|(_, v)| v).sum::<i64>());
        println!("killed {life} times: {one} + {two} = {}", one + two);
        assert_eq!(one + two, 2 * 100 * i64::try_from(ACCOUNTS)?);
        checking.close().await?;
        savings.close().await?;
    }
    Ok(())
}
