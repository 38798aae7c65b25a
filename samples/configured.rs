//! A program whose configuration file says where its maps are kept.
//!
//! ```text
//! cargo run --example configured
//! ```

use std::{env, error::Error, fs};

use persistify::{PersistentMap, ProviderConfig};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    greeting: String,
    store: ProviderConfig,
}

const CONFIG: &str = r#"greeting = "Hello"

[store]
url = "json:./data"
namespace = "shop"
keep_tombstones = "1h"
"#;

/// The program. It names no provider.
async fn run() -> Result<u32, Box<dyn Error>> {
    let config: Config = toml::from_str(&fs::read_to_string("config.toml")?)?;
    let store = config.store.connect().await?;
    let visits = PersistentMap::builder(store.clone(), "visits")
        .open()
        .await?;
    visits.upsert("ada", 1, |count| *count += 1);
    let count = visits.get("ada").unwrap_or_default();
    println!("   {}, Ada. This is visit {count}.", config.greeting);
    visits.close().await?;
    store.close().await?;
    Ok(count)
}

/// Writes `config.toml` with another first line of `[store]`.
fn configure(line: &str) -> std::io::Result<()> {
    println!("\nconfig.toml has the line: {line}");
    fs::write("config.toml", CONFIG.replace("url = \"json:./data\"", line))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    env::set_current_dir(&folder)?;
    println!("config.toml of the program:\n\n{CONFIG}");

    configure("url = \"json:./data\"")?;
    assert_eq!((run().await?, run().await?), (1, 2));
    configure("url = \"sqlite:app.db\"")?;
    assert_eq!((run().await?, run().await?), (1, 2));
    println!("\nThe program was the same. Its folder now has:");
    for file in ["data/shop%2fvisits.json", "app.db"] {
        println!("   {file}, {} bytes", fs::metadata(file)?.len());
    }

    configure("url = \"sqlite:app.db\"\nsynchronus = \"normal\"")?;
    let error = run().await.expect_err("`synchronus` is misspelt");
    println!("   error: {error}");
    assert!(error.to_string().contains("did you mean `synchronous`?"));

    // The same in one line, for an environment variable or an argument.
    let url = "sqlite:app.db?namespace=shop&synchronous=normal";
    let store = persistify::connect(url).await?;
    let visits: PersistentMap<u32> = PersistentMap::builder(store, "visits").open().await?;
    println!("\nConnected to {url}: {:?}", visits.snapshot());
    assert_eq!(visits.get("ada"), Some(2));
    visits.close().await?;
    env::set_current_dir("/")?; // so that the folder can be removed
    Ok(())
}
