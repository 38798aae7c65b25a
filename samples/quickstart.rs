//! The first sample: a map in a JSON file.
//!
//! Run it twice: the second run loads the entries of the first.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use persistify::{JsonFile, PersistentMap};

#[tokio::main]
async fn main() -> persistify::Result<()> {
    let files = JsonFile::open("./data").await?;
    let stock: PersistentMap<u32> = PersistentMap::builder(files, "stock").open().await?;
    println!("left from last time: {:?}", stock.snapshot());

    stock.insert("apple", 3); // in memory now, on disk within a second
    stock.insert_and_save("pear", 5).await?; // on disk when it returns
    stock.upsert("plum", 1, |n| *n += 1); // one more each time this runs
    println!("plums: {:?}", stock.get("plum"));

    stock.close().await?; // saves the rest

    show("./data/stock.json");
    Ok(())
}

/// Prints the file. People can read it, edit it while the map is closed, and keep it
/// under version control.
fn show(path: &str) {
    let text = std::fs::read_to_string(path).expect("a closed map is a JSON file");
    println!("{path} now holds:\n{}", text.trim_end());
    for fruit in ["apple", "pear", "plum"] {
        assert!(text.contains(fruit), "no {fruit} in {path}");
    }
    println!("Run it again: it continues with these entries.");
}
