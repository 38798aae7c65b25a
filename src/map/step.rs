//! What happens to one key in a commit that lands whole or not at all.

use std::time::{Duration, SystemTime};

use crate::batch::{Expect, Op};

/// What happens to one key.
pub(super) struct Step<V> {
    /// `None` for a key of which something is expected, and nothing more; and
    /// for a value that is not encoded yet.
    pub(super) op: Option<Op>,
    pub(super) expect: Option<Expect>,
    /// The value that the change puts.
    pub(super) value: Option<V>,
    pub(super) ttl: Option<Duration>,
    /// When it was written.
    pub(super) at: SystemTime,
}

impl<V> Step<V> {
    /// Whether anything happens to the key.
    pub(super) fn is_change(&self) -> bool {
        self.op.is_some() || self.value.is_some()
    }

    /// What is expected of the key; anything, if nothing was said.
    pub(super) fn expect(&self) -> Expect {
        self.expect.unwrap_or_default()
    }

    /// The write that its expiry is counted from, which may be long before the
    /// commit. An own time is known again, after a restart, as the time between
    /// the two.
    pub(super) fn written_at(&self) -> SystemTime {
        let expires_at = match self.op {
            Some(Op::Put { expires_at, .. }) => expires_at,
            _ => None,
        };
        let counted_back = expires_at.zip(self.ttl);
        let counted_back = counted_back.and_then(|(end, ttl)| end.checked_sub(ttl));
        counted_back.unwrap_or(self.at).min(self.at)
    }
}
