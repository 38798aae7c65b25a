//! A PostgreSQL server dies and comes back, and saves go on.
//!
//! A journal on the local disk acknowledges saves, and a circuit breaker keeps the journal
//! from waiting for a dead server. The sample starts a server of its own:
//!
//! ```text
//! cargo run --features postgres --example resilience
//! ```

mod programs;
mod server;

use std::{error::Error, time::Duration};

use persistify::{
    CircuitBreaker, Journaled, MapName, PersistentMap, Postgres, Provider, ProviderExt, Wanted,
};
use server::Server;
use tokio::time::{Instant, sleep};

type Outcome<T> = Result<T, Box<dyn Error>>;
type Store = CircuitBreaker<Postgres>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let Some(server) = Server::start()? else {
        println!("Install PostgreSQL, and run this again: sudo apt-get install postgresql");
        return Ok(());
    };
    let spool = tempfile::tempdir()?;
    let breaker = CircuitBreaker::new()
        .failures(2)
        .cool_down(Duration::from_millis(500));
    let remote = Postgres::connect(&server.url()).await?.layer(breaker);
    let journal = remote.clone().layer(Journaled::new(spool.path()));
    let orders = PersistentMap::builder(journal.clone(), "orders")
        .open()
        .await?;

    println!("the server runs");
    take_orders(&orders, &remote, &journal).await?;
    server.kill()?;
    println!("the server is dead");
    take_orders(&orders, &remote, &journal).await?;
    server.revive()?;
    println!("the server runs again");
    take_orders(&orders, &remote, &journal).await?;

    journal.drain().await?;
    orders.close().await?;
    let stored = remote.load(&MapName::new("orders")?, Wanted::All).await?;
    let stored = stored.into_records().await?.len();
    println!("saved {}, in the database {stored}", orders.len());
    assert_eq!(stored, orders.len());
    Ok(journal.close().await?)
}

/// Saves orders for a while. Every save returns once the journal has it.
async fn take_orders(
    orders: &PersistentMap<u64>,
    remote: &Store,
    journal: &Journaled<Store>,
) -> Outcome<()> {
    let map = MapName::new("orders")?;
    for _ in 0..4 {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            let number = orders.len() as u64;
            orders
                .insert_and_save(format!("order {number:05}"), number)
                .await?;
            sleep(Duration::from_millis(5)).await;
        }
        let waiting = journal.stats().get(&map).map_or(0, |stats| stats.batches);
        let (saved, state) = (orders.len(), remote.state());
        println!("  saved {saved:>3}, waiting in the journal {waiting:>3}, breaker {state:?}");
    }
    Ok(())
}
