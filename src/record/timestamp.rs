//! Times as stores keep them.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// A time as a store may keep it: whole milliseconds since 1970.
///
/// It is rounded down, so an entry expires up to a millisecond early, never late.
/// In serde it is its number.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use persistify::Timestamp;
///
/// let time = SystemTime::UNIX_EPOCH + Duration::from_micros(7_900);
/// assert_eq!(Timestamp::of(time).millis(), 7);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Converts a time, rounded down; a time beyond the range of `i64` is clamped.
    pub fn of(time: SystemTime) -> Self {
        Self(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => {
                let before = before.duration().as_nanos().div_ceil(1_000_000);
                i64::try_from(before).map_or(i64::MIN, |before| -before)
            }
        })
    }

    /// Creates a timestamp from the milliseconds since 1970.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// The milliseconds since 1970.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Converts to a `SystemTime`; `None` if `SystemTime` cannot represent it.
    pub fn time(self) -> Option<SystemTime> {
        let distance = Duration::from_millis(self.0.unsigned_abs());
        if self.0 < 0 {
            return SystemTime::UNIX_EPOCH.checked_sub(distance);
        }
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self::of(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rounded_down_on_both_sides_of_1970() {
        let epoch = SystemTime::UNIX_EPOCH;
        let micros = Duration::from_micros;
        for (time, millis) in [
            (epoch + micros(1_999), 1),
            (epoch + micros(1_000), 1),
            (epoch, 0),
            (epoch - micros(1), -1),
            (epoch - micros(1_000), -1),
            (epoch - micros(1_001), -2),
        ] {
            assert_eq!(Timestamp::of(time).millis(), millis);
        }
        let back = Timestamp::from_millis(-2).time();
        assert_eq!(back, Some(epoch - micros(2_000)));
        let far = epoch.checked_add(Duration::from_secs(1 << 60));
        assert!(far.is_none_or(|far| Timestamp::of(far).millis() == i64::MAX));
    }
}
