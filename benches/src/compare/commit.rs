//! One line that says what was measured: the commit, and how thoroughly.

use std::process::Command;

pub fn describe_run(quick: bool) -> String {
    let commit = commit().unwrap_or_else(|| "unknown".into());
    let run = if quick { "quick" } else { "thorough" };
    format!("commit {commit}, {run} run")
}

/// The commit of the sources, with `-dirty` if they have changes since.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.current_dir(env!("CARGO_MANIFEST_DIR"));
    // Without `--exclude`, it would name the last tag.
    git.args(["describe", "--always", "--dirty", "--exclude=*"]);
    let output = git.output().ok().filter(|git| git.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
