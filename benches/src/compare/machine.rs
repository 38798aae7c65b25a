//! One line that describes the machine.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    thread,
};

use persistify_benches::{Unit, in_unit, timed};

use crate::work::{median, total};

const SYNCS: usize = 200;

/// Cores, CPU, file system and latency of the folder, and the current load.
pub fn describe(folder: &Path) -> String {
    let cores = cores();
    let cpu = cpu().unwrap_or_else(|| "unknown CPU".into());
    let system = file_system(folder).unwrap_or_else(|| "unknown file system".into());
    let latency = in_unit(fdatasync_latency(folder), Unit::Nanoseconds);
    let load = load().map_or_else(|| "unknown load".into(), |load| format!("load {load}"));
    format!(
        "machine: {cores} cores, {cpu}; {system}, fdatasync of 100 appended bytes {latency} (median); {load}"
    )
}

/// Other programs delay a thread that wakes up after an fsync by milliseconds, and do not affect
/// all contenders equally.
pub fn warning() -> Option<&'static str> {
    let is_busy = load()? > 0.5;
    is_busy.then_some(
        "WARNING: the machine is busy. Results that include an fsync are not to be trusted.",
    )
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The average number of running threads in the last minute.
fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The file system of the longest mount point that contains the folder.
fn file_system(folder: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let around = mounts.filter(|(point, _)| folder.starts_with(point));
    let (_, system) = around.max_by_key(|(point, _)| point.len())?;
    Some(system.to_owned())
}

fn fdatasync_latency(folder: &Path) -> f64 {
    let mut file = File::create(folder.join("latency")).expect("a file");
    let syncs = (0..SYNCS).flat_map(|_| {
        file.write_all(&[b'x'; 100]).expect("appended bytes");
        total(timed(|| file.sync_data().expect("synced bytes")))
    });
    median(syncs.collect())
}
