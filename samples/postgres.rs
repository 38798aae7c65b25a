//! A map in a PostgreSQL database, in a table that SQL can query.
//!
//! ```text
//! docker compose up --detach      # or use a server of your own
//! DATABASE_URL=postgres://persistify:persistify@localhost:5432/persistify \
//!     cargo run --features postgres --example postgres
//! ```

use std::error::Error;

use persistify::{PersistentMap, Postgres};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    customer: String,
    cents: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Ok(url) = std::env::var("DATABASE_URL") else {
        println!("Set the URL of a database and run this again:");
        println!("    DATABASE_URL=postgres://user:password@host:5432/database");
        println!("`docker compose up --detach` starts a server; see compose.yaml.");
        return Ok(());
    };
    // A schema of its own keeps the tables apart from all others.
    let postgres = Postgres::builder(&url)
        .schema("persistify_sample")
        .connect()
        .await?;
    let open = async || -> persistify::Result<PersistentMap<Order>> {
        PersistentMap::builder(postgres.clone(), "orders")
            // `total` is an estimate, if the server has one.
            .on_progress(|loaded, total| match total {
                Some(total) => println!("loaded {loaded} of about {total}"),
                None => println!("loaded {loaded}"),
            })
            .open()
            .await
    };
    let orders = open().await?;
    println!("orders from last time: {}", orders.len());

    let number = format!("2024-{:04}", orders.len() + 1);
    let order = Order {
        customer: "Ada".to_owned(),
        cents: 1_250,
    };
    // One transaction. The order is on the server's disk when this returns.
    orders.insert_and_save(&number, order.clone()).await?;

    // Concurrent saves are committed together, in one or a few transactions.
    let tasks = (0..64).map(|n| {
        let (orders, order) = (orders.clone(), order.clone());
        tokio::spawn(async move { orders.insert_and_save(format!("bulk {n}"), order).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    orders.close().await?;

    // The next process that opens the map finds all orders.
    let again = open().await?;
    assert_eq!(again.get(&number), Some(order));
    println!("orders now: {}", again.len());
    println!("in SQL: SELECT value->>'customer' FROM persistify_sample.map_orders;");
    again.close().await?;
    postgres.close().await?;
    Ok(())
}
