//! Settings in a JSON file that people read and edit.
//!
//! ```text
//! cargo run --example config_store
//! ```

use std::{error::Error, fs};

use persistify::{JsonFile, PersistentMap};
use serde_json::{Value, json};

/// JSON values of any type. With a struct as the type, `open` fails if a stored value
/// does not fit.
type Settings = PersistentMap<Value>;

async fn open(files: JsonFile) -> persistify::Result<Settings> {
    let settings: Settings = PersistentMap::builder(files, "settings").open().await?;
    // Defaults for missing settings.
    settings.get_or_insert_with("theme", || json!("light"));
    settings.get_or_insert_with("window", || json!({ "width": 800, "height": 600 }));
    Ok(settings)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("settings.json");

    println!("The program starts for the first time and makes the window wider.");
    let files = JsonFile::open(folder.path()).await?;
    let settings = open(files.clone()).await?;
    settings.update("window", |window| window["width"] = json!(1024));

    // A second process cannot open the folder; its error says what to do.
    let second = JsonFile::open(folder.path()).await;
    let error = second.expect_err("the folder is locked");
    println!("A second process tries to open the folder:\n   {error:?}");

    settings.close().await?; // saves the map
    files.close().await?; // unlocks the folder
    let text = fs::read_to_string(&file)?;
    println!(
        "settings.json after the program has ended:\n{}",
        text.trim_end()
    );

    // While the program is not running, the file can be edited.
    fs::write(&file, text.replace("light", "dark"))?;
    println!("A user sets the theme to dark in an editor.");

    let files = JsonFile::open(folder.path()).await?;
    let settings = open(files).await?;
    let theme = settings.get("theme");
    println!(
        "The program starts again. Theme: {}",
        theme.clone().unwrap_or_default()
    );
    assert_eq!(theme, Some(json!("dark")));
    let width = settings.read("window", |window| window["width"].clone());
    assert_eq!(width, Some(json!(1024)));
    settings.close().await?;
    Ok(())
}
