//! Revisions, sequences and times as the 64-bit integers of a database.

use std::time::{Duration, SystemTime};

use crate::{
    error::{Error, ErrorKind, Result},
    record::Revision,
};

/// # Errors
///
/// `Invalid` if it exceeds the database's integers.
pub(crate) fn from_revision(revision: Revision) -> Result<i64> {
    i64::try_from(revision.get()).map_err(|cause| {
        let message =
            "SQL databases keep revisions up to 2^63 only; check the writer's clock and `after`";
        Error::new(ErrorKind::Invalid, message).with_source(cause)
    })
}

/// Like [`from_revision`], for comparisons: it saturates, because no stored revision is
/// higher than `i64::MAX`.
pub(crate) fn bound(revision: Revision) -> i64 {
    i64::try_from(revision.get()).unwrap_or(i64::MAX)
}

pub(crate) fn to_revision(stored: i64) -> Revision {
    Revision::new(u64::try_from(stored).unwrap_or_default())
}

/// The revision for changes of another program that are found outside of a
/// commit: above `last`, and not below the milliseconds since 1970.
pub(crate) fn revision_now(last: Revision) -> Revision {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let floor = since_1970.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0));
    Revision::new(floor.max(last.get().saturating_add(1)))
}

/// Stores a number that uses all 64 bits; from 2^63 on, it becomes negative.
pub(crate) fn from_bits(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

pub(crate) fn to_bits(stored: i64) -> u64 {
    u64::from_ne_bytes(stored.to_ne_bytes())
}

/// The whole units from `zero` to `time`, rounded down: an entry expires early rather
/// than late. It saturates.
pub(crate) fn from_time(time: SystemTime, zero: SystemTime, unit: Duration) -> i64 {
    match time.duration_since(zero) {
        Ok(since) => i64::try_from(since.as_nanos() / unit.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => {
            let units = before.duration().as_nanos().div_ceil(unit.as_nanos());
            i64::try_from(units).map_or(i64::MIN, |units| -units)
        }
    }
}

/// The time that many units after `zero`; 1970 if the system cannot represent it.
pub(crate) fn to_time(units: i64, zero: SystemTime, unit: Duration) -> SystemTime {
    let nanos = u128::from(units.unsigned_abs()) * unit.as_nanos();
    let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
    let rest = u32::try_from(nanos % 1_000_000_000).unwrap_or_default();
    let away = Duration::new(seconds, rest);
    let time = if units < 0 {
        zero.checked_sub(away)
    } else {
        zero.checked_add(away)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
