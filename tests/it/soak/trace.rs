//! A log of all calls, for debugging a history that fails.

use std::{env, fmt::Display};

use persistify::{
    Batch, Change, MapBatch, Op,
    testing::{Call, Fault},
};

/// Whether `PERSISTIFY_SOAK_TRACE` is set.
pub(super) fn is_on() -> bool {
    env::var_os("PERSISTIFY_SOAK_TRACE").is_some()
}

pub(super) fn tell(what: impl FnOnce() -> String) {
    if is_on() {
        eprintln!("{}", what());
    }
}

pub(super) fn call(call: &Call, fault: &Fault) {
    tell(|| {
        let on: &dyn Display = match (&call.map, &call.batch) {
            (Some(map), _) => map,
            (_, Some(batch)) => {
                return format!("commit: {}: {}", batch_text(batch), name_of(fault));
            }
            _ => &"",
        };
        format!("{} {on}: {}", call.method, name_of(fault))
    });
}

fn name_of(fault: &Fault) -> String {
    let text = format!("{fault:?}");
    text.split(" {").next().unwrap_or_default().to_owned()
}

fn batch_text(batch: &Batch) -> String {
    let writer = batch.id.writer;
    let parts: Vec<_> = batch.maps.iter().map(part_text).collect();
    format!("{writer}/{} {}", batch.id.sequence, parts.join(" "))
}

fn part_text(part: &MapBatch) -> String {
    let clear = if part.clear { " cleared" } else { "" };
    let changes: Vec<_> = part.changes.iter().map(change_text).collect();
    format!("{}{clear} {}", part.map, changes.join(" "))
}

fn change_text(change: &Change) -> String {
    let op = match &change.op {
        Op::Put { payload, .. } => String::from_utf8_lossy(&payload.bytes).into_owned(),
        other => format!("{other:?}"),
    };
    format!("[{} = {op} if {:?}]", change.key, change.expect)
}
