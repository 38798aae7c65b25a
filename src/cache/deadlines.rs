//! Deadlines: their encoding, and an index of the next one.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// A time in milliseconds since 1970, the unit in which expiries are stored.
pub(crate) type Millis = u64;

/// The deadline of an entry that does not expire: later than every time.
pub(crate) const NEVER: Millis = Millis::MAX;

/// The end of the year 9999. An entry whose own time to live is longer has this
/// deadline and counts as one that does not expire. Without a deadline, it would
/// get that of the map at the next opening.
pub(crate) const FAR: Millis = 253_402_300_799_996;

pub(crate) fn millis(at: SystemTime) -> Millis {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    length(since)
}

pub(crate) fn length(of: Duration) -> Millis {
    Millis::try_from(of.as_millis()).unwrap_or(NEVER)
}

pub(crate) fn time(at: Millis) -> Option<SystemTime> {
    if at == NEVER {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at))
}

/// The kind of a deadline.
///
/// The store keeps one number for each entry, and after a restart a read or an
/// update must not extend an entry that it did not extend before. So the
/// remainder of the deadline divided by four encodes its kind. Entries therefore
/// expire up to three milliseconds early, never late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The entry's own time to live: remainder 0. An update restarts it.
    Own,
    /// The map's time to live: remainder 1 or 3.
    Live,
    /// The map's time to idle, which reads restart: remainder 2.
    Idle,
}

impl Kind {
    pub(crate) fn of(deadline: Millis) -> Self {
        match deadline % 4 {
            0 => Self::Own,
            2 => Self::Idle,
            _ => Self::Live,
        }
    }

    /// Encodes this time, or one just before it, as a deadline of this kind.
    pub(crate) fn mark(self, at: Millis) -> Millis {
        match self {
            _ if at == NEVER => NEVER,
            Self::Own => at & !3,
            Self::Live => at.saturating_sub(1) | 1,
            Self::Idle => (at.saturating_sub(2) & !3) | 2,
        }
    }

    /// The deadline of an entry that lives for `wait` from `from` on.
    pub(crate) fn after(self, from: Millis, wait: Duration) -> Millis {
        self.mark(from.saturating_add(length(lasting(wait))))
    }
}

/// Rounds times from one to four milliseconds up to four: otherwise a deadline,
/// which may be three milliseconds early, could have passed already at the
/// write.
pub(crate) fn lasting(wait: Duration) -> Duration {
    if wait < Duration::from_millis(1) {
        return Duration::ZERO;
    }
    wait.max(Duration::from_millis(4))
}

/// The deadlines of all entries that have one, each key once. Its size is
/// proportional to the number of entries, not of writes.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(BTreeSet<Deadline>);

/// A deadline, and the key with its hash. Many keys have the same deadline; comparing
/// their hashes saves fetching both keys from memory.
type Deadline = (Millis, u64, Arc<str>);

impl Deadlines {
    /// Moves a key of this hash from one deadline to another; returns whether the new
    /// one is earlier than all others.
    pub(crate) fn shift(&mut self, hash: u64, key: &Arc<str>, from: Millis, to: Millis) -> bool {
        if from != NEVER {
            self.0.remove(&(from, hash, key.clone()));
        }
        if to == NEVER {
            return false;
        }
        let is_next = self.next().is_none_or(|next| to < next);
        self.0.insert((to, hash, key.clone()));
        is_next
    }

    pub(crate) fn next(&self) -> Option<Millis> {
        self.0.first().map(|(at, ..)| *at)
    }

    /// Removes a key whose deadline has passed; returns both.
    pub(crate) fn pop_due(&mut self, now: Millis) -> Option<(Millis, Arc<str>)> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop_first().map(|(at, _, key)| (at, key))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_encodes_its_kind_and_is_early_by_three_milliseconds_at_most() {
        for kind in [Kind::Own, Kind::Live, Kind::Idle] {
            for wait in 1..40 {
                for from in 100..108 {
                    let deadline = kind.after(from, Duration::from_millis(wait));
                    assert_eq!(Kind::of(deadline), kind);
                    let end = from + wait.max(4);
                    let is_early = from < deadline && deadline <= end && end <= deadline + 3;
                    assert!(is_early, "{kind:?} {from} {wait}");
                }
            }
            assert!(kind.after(100, Duration::ZERO) <= 100);
            assert_eq!(kind.after(100, Duration::MAX), NEVER);
        }
        assert_eq!(Kind::of(FAR), Kind::Own);
    }

    #[test]
    fn a_key_has_one_deadline_and_the_earliest_comes_first() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut deadlines = Deadlines::default();
        assert!(deadlines.shift(1, &a, NEVER, 20));
        assert!(!deadlines.shift(2, &b, NEVER, 30));
        assert!(deadlines.shift(2, &b, 30, 10));
        assert_eq!(deadlines.next(), Some(10));
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(10), Some((10, b)));
        assert_eq!(deadlines.pop_due(10), None);
        assert!(!deadlines.shift(1, &a, 20, NEVER));
        assert_eq!(deadlines.next(), None);
    }
}
