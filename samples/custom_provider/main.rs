//! A custom provider (`one_file.rs`) with conditions, groups and batches of several
//! maps. The conformance suite tests it against the contract of `Provider`; then two
//! maps use it.
//!
//! ```text
//! cargo run --example custom_provider
//! ```

mod document;
mod one_file;

use std::{error::Error, sync::Mutex};

use one_file::OneFile;
use persistify::{PersistentMap, Transaction, testing::conformance};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let open = |name| OneFile(folder.path().join(name), Mutex::default());

    // The suite opens the provider many times, always on the same file. If the
    // provider violates the contract, the suite panics with a message that says how.
    let report = conformance(async || Ok(open("suite.json"))).await;
    println!("The provider keeps the contract:\n{report}");

    let shop = std::sync::Arc::new(open("shop.json"));
    let stock: PersistentMap<u32> = PersistentMap::builder(shop.clone(), "stock").open().await?;
    let sold: PersistentMap<u32> = PersistentMap::builder(shop.clone(), "sold").open().await?;
    let mut sale = Transaction::new(&shop);
    sale.insert(&stock, "apple", 3).insert(&sold, "apple", 1);
    sale.commit().await?;
    stock.close().await?;
    sold.close().await?;

    let reopened = open("shop.json");
    let stock: PersistentMap<u32> = PersistentMap::builder(reopened, "stock").open().await?;
    println!("After a restart: {:?}", stock.snapshot());
    assert_eq!(stock.get("apple"), Some(3));
    stock.close().await?;
    let text = std::fs::read_to_string(folder.path().join("shop.json"))?;
    println!("shop.json:\n{text}");
    Ok(())
}
