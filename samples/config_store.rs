//! Settings of a program in a file that people read and edit.
//!
//! ```text
//! cargo run --example config_store
//! ```

use std::{error::Error, fs, path::Path};

use persistify::{JsonFile, PersistentMap};
use serde_json::{Value, json};

/// Values of any shape; a program that knows its settings uses a type of its
/// own, and then a value that does not fit is an error when the map opens.
type Settings = PersistentMap<Value>;

async fn open(folder: &Path) -> persistify::Result<Settings> {
    let settings: Settings = PersistentMap::builder(JsonFile::open(folder).await?, "settings")
        .open()
        .await?;
    // Defaults for what is not there yet.
    settings.get_or_insert_with("theme", || json!("light"));
    settings.get_or_insert_with("window", || json!({ "width": 800, "height": 600 }));
    settings.get_or_insert_with("recent", || json!([]));
    Ok(settings)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("settings.json");

    let settings = open(folder.path()).await?;
    settings.update("window", |window| window["width"] = json!(1024));
    settings.update("recent", |recent| {
        recent
            .as_array_mut()
            .expect("a list")
            .push(json!("notes.txt"));
    });
    settings.close().await?;
    drop(settings);
    println!(
        "settings.json, as the program left it:\n{}",
        fs::read_to_string(&file)?
    );

    // While the program is not running, a person edits the file.
    let edited = fs::read_to_string(&file)?.replace("light", "dark");
    fs::write(&file, edited)?;
    println!("someone makes the theme dark with an editor.\n");

    let settings = open(folder.path()).await?;
    println!(
        "the program starts again: the theme is {}",
        settings.get("theme").expect("a theme")
    );
    assert_eq!(settings.get("theme"), Some(json!("dark")));
    assert_eq!(
        settings.get("window"),
        Some(json!({ "width": 1024, "height": 600 }))
    );

    // A second process is kept out, with an error that says what to do.
    let second = JsonFile::open(folder.path()).await;
    println!(
        "a second program, meanwhile: {:?}",
        second.expect_err("the folder is locked")
    );
    settings.close().await?;
    Ok(())
}
