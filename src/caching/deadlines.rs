//! Which key expires next.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// A time in milliseconds since 1970, which is how expiries are stored.
pub(super) type Millis = u64;

/// Later than every time: it does not expire.
pub(super) const NEVER: Millis = Millis::MAX;

pub(super) fn millis(at: SystemTime) -> Millis {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(NEVER)
}

pub(super) fn time(at: Millis) -> Option<SystemTime> {
    if at == NEVER {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at))
}

/// That time, or just before, as an odd number.
pub(super) fn odd(at: Millis) -> Millis {
    if at == NEVER {
        at
    } else {
        at.saturating_sub(1) | 1
    }
}

/// That time, or just before, as an even number.
pub(super) fn even(at: Millis) -> Millis {
    if at == NEVER { at } else { at & !1 }
}

/// The deadlines of all entries that have one, each key once: so it grows with
/// the entries, and not with the writes to them.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Millis, Arc<str>)>);

impl Deadlines {
    /// Moves a key from one deadline to another; says whether the next deadline
    /// of all is an earlier one now.
    pub(super) fn shift(&mut self, key: &Arc<str>, from: Millis, to: Millis) -> bool {
        self.0.remove(&(from, key.clone()));
        if to == NEVER {
            return false;
        }
        let is_next = self.next().is_none_or(|next| to < next);
        self.0.insert((to, key.clone()));
        is_next
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out a key whose deadline has come.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<Arc<str>> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop_first().map(|(_, key)| key)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_deadline_and_the_earliest_comes_first() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut deadlines = Deadlines::default();
        assert!(deadlines.shift(&a, NEVER, 20));
        assert!(!deadlines.shift(&b, NEVER, 30));
        assert!(deadlines.shift(&b, 30, 10));
        assert_eq!(deadlines.next(), Some(10));
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(10).as_deref(), Some("b"));
        assert_eq!(deadlines.pop_due(10), None);
        assert!(!deadlines.shift(&a, 20, NEVER));
        assert_eq!(deadlines.next(), None);
    }
}
