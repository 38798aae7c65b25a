//! Turns that a contender takes in a process of its own, so that it shares no memory with
//! the others.

use std::{
    env,
    process::{Command, Stdio},
};

const TASK: &str = "PERSISTIFY_BENCH_CHILD";

/// The task of this process, if it is a child.
pub fn task() -> Option<String> {
    env::var(TASK).ok()
}

/// Runs this program as a child with the task; returns the numbers that it prints.
pub fn measure(task: &str) -> Vec<f64> {
    let this = env::current_exe().expect("a path of this program");
    let mut child = Command::new(this);
    let output = child.env(TASK, task).stderr(Stdio::inherit()).output();
    let output = output.expect("a child process");
    assert!(output.status.success(), "the child failed: {task}");
    let printed = String::from_utf8(output.stdout).expect("text");
    let numbers = printed.split_whitespace().map(str::parse);
    numbers.collect::<Result<_, _>>().expect("numbers")
}

/// Prints the numbers for the parent.
pub fn report(numbers: &[f64]) {
    for number in numbers {
        println!("{number}");
    }
}
