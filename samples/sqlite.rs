//! Maps in a SQLite file: two maps in one file, and a map in a table of another
//! program.
//!
//! ```text
//! cargo run --example sqlite
//! ```

use std::{error::Error, path::Path};

use persistify::{PersistentMap, Sqlite};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    customer: String,
    cents: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("shop.db");
    two_maps_in_one_file(&path).await?;
    a_table_of_another_program(&path).await
}

async fn two_maps_in_one_file(path: &Path) -> Result<(), Box<dyn Error>> {
    // One provider serves many maps. Clones are handles of one provider.
    let file = Sqlite::open(path).await?;
    let orders = PersistentMap::builder(file.clone(), "orders")
        .open()
        .await?;
    let visits = PersistentMap::builder(file, "visits").open().await?;

    let order = Order {
        customer: "Ada".to_owned(),
        cents: 1_250,
    };
    // Orders wait for the disk; statistics do not.
    orders.insert_and_save("2024-0001", order.clone()).await?;
    visits.upsert("Ada", 1, |n| *n += 1);

    orders.close().await?;
    visits.close().await?;

    // Any other tool can read the table.
    let sql = "SELECT value FROM map_orders WHERE key = '2024-0001'";
    let row: String = Connection::open(path)?.query_row(sql, [], |row| row.get(0))?;
    println!("the order, read with SQL: {row}");
    assert_eq!(serde_json::from_str::<Order>(&row)?, order);
    Ok(())
}

async fn a_table_of_another_program(path: &Path) -> Result<(), Box<dyn Error>> {
    let other = Connection::open(path)?;
    other.execute_batch(
        r#"CREATE TABLE "Limits" ("Key" TEXT PRIMARY KEY, "Value" TEXT NOT NULL, UpdatedAt DATETIME);
           INSERT INTO "Limits" VALUES ('per day', '100', NULL);"#,
    )?;

    // The map `limits` adopts that table, without altering it.
    let file = Sqlite::builder(path)
        .table("limits", "Limits")
        .columns("Key", "Value", "UpdatedAt")
        .open()
        .await?;
    let limits: PersistentMap<u32> = PersistentMap::builder(file, "limits").open().await?;
    let day = limits.get("per day");
    println!("the limit that the other program has set: {day:?} per day");
    assert_eq!(day, Some(100));
    limits.insert_and_save("per hour", 20).await?;
    limits.close().await?;

    let sql = r#"SELECT "Value" FROM "Limits" WHERE "Key" = 'per hour'"#;
    let theirs: String = other.query_row(sql, [], |row| row.get(0))?;
    println!("the limit that the other program now reads: {theirs} per hour");
    assert_eq!(theirs, "20");
    Ok(())
}
