//! Settings of a program in a file that people read and edit.
//!
//! ```text
//! cargo run --example config_store
//! ```

use std::{error::Error, fs};

use persistify::{JsonFile, PersistentMap};
use serde_json::{Value, json};

/// Values of any shape; a program that knows its settings uses a type of its
/// own, and then a value that does not fit is an error when the map opens.
type Settings = PersistentMap<Value>;

async fn open(files: JsonFile) -> persistify::Result<Settings> {
    let settings: Settings = PersistentMap::builder(files, "settings").open().await?;
    // Defaults for what is not there yet.
    settings.get_or_insert_with("theme", || json!("light"));
    settings.get_or_insert_with("window", || json!({ "width": 800, "height": 600 }));
    Ok(settings)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("settings.json");

    println!("the program starts for the first time, and makes the window wider");
    let files = JsonFile::open(folder.path()).await?;
    let settings = open(files.clone()).await?;
    settings.update("window", |window| window["width"] = json!(1024));

    // A second process is kept out, with an error that says what to do.
    let second = JsonFile::open(folder.path()).await;
    let error = second.expect_err("the folder is locked");
    println!("a second one, meanwhile:\n   {error:?}");

    settings.close().await?; // the map is saved
    files.close().await?; // and the folder is free for others
    let text = fs::read_to_string(&file)?;
    println!(
        "settings.json, as the program left it:\n{}",
        text.trim_end()
    );

    // While the program is not running, a person edits the file.
    fs::write(&file, text.replace("light", "dark"))?;
    println!("someone makes the theme dark, with an editor");

    let files = JsonFile::open(folder.path()).await?;
    let settings = open(files).await?;
    let theme = settings.get("theme");
    println!(
        "the program starts again; theme: {}",
        theme.clone().unwrap_or_default()
    );
    assert_eq!(theme, Some(json!("dark")));
    let width = settings.read("window", |window| window["width"].clone());
    assert_eq!(width, Some(json!(1024)));
    settings.close().await?;
    Ok(())
}
