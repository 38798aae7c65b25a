//! Copies maps from JSON files to SQLite, with a progress bar. A copy that was
//! interrupted is resumed by running it again.
//!
//! ```text
//! cargo run --example move_house
//! ```

use std::{error::Error, path::Path};

use indicatif::{ProgressBar, ProgressStyle};
use persistify::{JsonFile, PersistentMap, Provider, Sqlite};

const ORDERS: u64 = 50_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (old, new) = (folder.path().join("data"), folder.path().join("shop.db"));
    fill(&old).await?;

    let from = JsonFile::open(&old).await?;
    let to = Sqlite::open(&new).await?;
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(
        "copying {bar:30} {pos}/{len} records, {per_sec}",
    )?);
    let moved = persistify::copy(&from, &to, from.maps().await?, |records, total| {
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(records);
    })
    .await?;
    bar.finish();

    // `Ok` means that both sides were re-read and compared equal.
    println!(
        "{} maps with {} records are now in {}; {} bytes were written",
        moved.maps,
        moved.records,
        new.display(),
        moved.bytes
    );
    let orders: PersistentMap<u64> = PersistentMap::builder(to, "orders").open().await?;
    println!("the last order: {:?}", orders.get("49999"));
    assert_eq!(orders.get("49999"), Some(49_999));
    orders.close().await?;
    Ok(())
}

/// Creates the maps to copy.
async fn fill(path: &Path) -> persistify::Result<()> {
    let files = JsonFile::open(path).await?;
    let orders = PersistentMap::builder(files.clone(), "orders")
        .open()
        .await?;
    orders.extend((0..ORDERS).map(|n| (n.to_string(), n)));
    orders.close().await?;
    let names = PersistentMap::builder(files.clone(), "customers")
        .open()
        .await?;
    names.insert("ada", "Ada Lovelace".to_owned());
    names.close().await?;
    // The folder is locked until the provider is closed.
    files.close().await
}
