//! A to-do list on the command line, with a plain `fn main` and without async.
//!
//! ```text
//! cargo run --example todo -- add "water the plants"
//! cargo run --example todo -- done 1
//! cargo run --example todo -- list
//! cargo run --example todo             runs a demonstration in a temporary folder
//! ```

use std::{env, error::Error, path::Path, time::Duration};

use persistify::{
    JsonFile,
    blocking::{PersistentMap, Runtime},
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Task {
    text: String,
    done: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    if !words.is_empty() {
        return run(Path::new("./data"), &words.join(" "));
    }
    let folder = tempfile::tempdir()?;
    for command in ["add water the plants", "add call home", "done 1", "list"] {
        println!("> {command}");
        run(folder.path(), command)?;
    }
    let mistake = run(folder.path(), "done 7").expect_err("there are two tasks");
    println!("> done 7\n{mistake}");
    let text = std::fs::read_to_string(folder.path().join("todo.json"))?;
    println!("{}", text.trim_end());
    assert!(text.contains("call home") && text.contains("\"done\":true"));
    Ok(())
}

/// Runs one command: opens the list, changes it and closes it.
fn run(folder: &Path, command: &str) -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::start()?;
    let files = runtime.wait(JsonFile::open(folder))?;
    let tasks = persistify::PersistentMap::builder(files, "todo");
    let tasks: PersistentMap<Task> = runtime.open(tasks)?;
    // Saves all changes at the end of the scope, also after an error.
    let _closes = tasks.close_on_drop(Duration::from_secs(10));
    match command.split_once(' ') {
        Some(("add", text)) => {
            let number = (tasks.len() + 1).to_string();
            let (text, done) = (text.to_owned(), false);
            tasks.insert_and_save(&number, Task { text, done })?;
            println!("added as number {number}, and saved to disk");
        }
        Some(("done", number)) => {
            let done = tasks.update(number, |task| task.done = true);
            done.ok_or_else(|| format!("there is no task number {number}"))?;
        }
        _ => list(&tasks),
    }
    Ok(())
}

fn list(tasks: &PersistentMap<Task>) {
    let mut all: Vec<_> = tasks.iter().collect();
    all.sort_by_key(|(number, _)| number.parse::<u32>().unwrap_or(u32::MAX));
    for (number, task) in all {
        let mark = if task.done { "x" } else { " " };
        println!("[{mark}] {number} {}", task.text);
    }
}
