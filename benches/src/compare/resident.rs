//! The resident memory of this process.

use std::fs;

/// Bytes, as Linux reports them.
pub fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: Option<f64> = kilobytes.and_then(|word| word.parse().ok());
    kilobytes.expect("a number") * 1_024.0
}
