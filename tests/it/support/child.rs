//! Tests that run themselves as child processes.
//!
//! The child runs the same test. Environment variables tell it where the store is and what to
//! do. It never runs the parent's part of the test.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const PLACE: &str = "PERSISTIFY_CHILD_PLACE";
const ORDERS: &str = "PERSISTIFY_CHILD_ORDERS";

/// The parameters of a child: where the store is, and what to do.
pub(crate) struct Orders {
    pub(crate) place: String,
    pub(crate) words: String,
}

/// The parameters of this process; `None` in the parent.
pub(crate) fn orders() -> Option<Orders> {
    let place = env::var(PLACE).ok()?;
    let words = env::var(ORDERS).unwrap();
    Some(Orders { place, words })
}

/// Runs a test as a child, with these parameters.
pub(crate) fn spawn(test: &str, place: &str, words: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(PLACE, place)
        .env(ORDERS, words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Prints a line for the parent, in one write that begins with a newline, because the test
/// harness may have printed half a line before.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// The output of a child, without the last line if it is incomplete.
pub(crate) fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let mut from = BufReader::new(child.stdout.take().unwrap());
    std::iter::from_fn(move || {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        line.ends_with('\n').then(|| line.trim_end().to_owned())
    })
}

/// Reads the output of a child, line by line, and kills the child a given time after it first
/// printed the given word.
pub(crate) fn hear_and_kill(
    mut child: Child,
    word: &str,
    mercy: Duration,
    mut hear: impl FnMut(&str),
) {
    let said = lines(&mut child);
    std::thread::scope(|scope| {
        let mut alive = Some(&mut child);
        for line in said {
            hear(&line);
            if let Some(child) = alive.take_if(|_| line == word) {
                scope.spawn(move || {
                    std::thread::sleep(mercy);
                    child.kill().unwrap();
                });
            }
        }
    });
    let ended = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr);
    let signal = ended.status.signal();
    assert_eq!(signal, Some(9), "it fell by itself: {errors}");
}

/// Kills this process with `kill -9`.
pub(crate) fn die() -> ! {
    let pid = std::process::id().to_string();
    Command::new("kill").args(["-9", &pid]).status().unwrap();
    unreachable!("this process is dead")
}

pub(crate) fn file(place: &str) -> PathBuf {
    Path::new(place).join("maps.db")
}
