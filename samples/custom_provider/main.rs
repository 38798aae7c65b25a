//! A provider of one's own (in `one_file.rs`): conditions, groups and batches of
//! several maps included. It is put through the suite that says whether it keeps
//! the contract, and then used like any other.
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

    // The suite opens it many times, always on the same file. A provider that
    // breaks the contract makes it panic, and the message says how.
    let report = conformance(async || Ok(open("suite.json"))).await;
    println!("the contract is kept, word by word:\n{report}");

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
    println!("after a restart: {:?}", stock.snapshot());
    assert_eq!(stock.get("apple"), Some(3));
    stock.close().await?;
    let text = std::fs::read_to_string(folder.path().join("shop.json"))?;
    println!("shop.json:\n{text}");
    Ok(())
}
