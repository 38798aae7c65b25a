//! Maps in a PostgreSQL database, which other programs share.
//!
//! ```text
//! docker compose up --detach      # or a server that you have already
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
        println!("Say where the database is, and run this again:");
        println!("    DATABASE_URL=postgres://user:password@host:5432/database");
        println!("`docker compose up --detach` starts one, as compose.yaml says.");
        return Ok(());
    };
    // A schema of its own: nothing of this is in the way of anything else.
    let postgres = Postgres::builder(&url)
        .schema("persistify_sample")
        .connect()
        .await?;
    let open = async || -> persistify::Result<PersistentMap<Order>> {
        PersistentMap::builder(postgres.clone(), "orders")
            // `total` is an estimate, where the server has one.
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
    // One transaction, on the server's disk when this returns.
    orders.insert_and_save(&number, order.clone()).await?;

    // Many at once are one batch: one transaction as well.
    let tasks = (0..64).map(|n| {
        let (orders, order) = (orders.clone(), order.clone());
        tokio::spawn(async move { orders.insert_and_save(format!("bulk {n}"), order).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    orders.close().await?;

    // What is there when the next process opens the map.
    let again = open().await?;
    assert_eq!(again.get(&number), Some(order));
    println!("orders now: {}", again.len());
    println!("for SQL: SELECT value->>'customer' FROM persistify_sample.map_orders;");
    again.close().await?;
    postgres.close().await?;
    Ok(())
}
