//! A provider of one's own (in `documents.rs`), put through the suite that
//! says whether it keeps the contract, and then used like any other.
//!
//! ```text
//! cargo run --example custom_provider
//! ```

mod document;
mod documents;

use std::{error::Error, sync::Mutex};

use documents::Documents;
use persistify::{PersistentMap, testing::conformance};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let documents = || Documents(folder.path().to_owned(), Mutex::default());

    // What opens it is called many times, always on the same place. Whatever
    // is wrong ends in a panic that says which word of the contract is broken.
    let report = conformance(async || Ok(documents())).await;
    println!("the contract is kept, word by word:\n{report}");

    let provider = documents();
    let stock: PersistentMap<u32> = PersistentMap::builder(provider, "stock").open().await?;
    stock.insert("apple", 3);
    stock.close().await?;
    drop(stock);

    let provider = documents();
    let stock: PersistentMap<u32> = PersistentMap::builder(provider, "stock").open().await?;
    println!("after a restart: {:?}", stock.snapshot());
    assert_eq!(stock.get("apple"), Some(3));
    stock.close().await?;
    println!(
        "stock.json:\n{}",
        std::fs::read_to_string(folder.path().join("stock.json"))?
    );
    Ok(())
}
