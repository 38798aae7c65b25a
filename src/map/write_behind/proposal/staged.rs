//! What happens to one key in a commit that lands whole or not at all.

use std::time::{Duration, SystemTime};

use crate::batch::{Expect, Op};

/// What happens to one key.
pub(crate) struct StagedChange<V> {
    /// `None` for a key of which something is expected, and nothing more; and
    /// for a value that is not encoded yet.
    pub(crate) op: Option<Op>,
    pub(crate) expect: Option<Expect>,
    /// The value that the change puts.
    pub(crate) value: Option<V>,
    pub(crate) ttl: Option<Duration>,
    /// When it was written.
    pub(crate) at: SystemTime,
}

impl<V> StagedChange<V> {
    /// Whether anything happens to the key.
    pub(crate) fn is_change(&self) -> bool {
        self.op.is_some() || self.value.is_some()
    }

    /// What is expected of the key; anything, if nothing was said.
    pub(crate) fn expect(&self) -> Expect {
        self.expect.unwrap_or_default()
    }

    /// The write that its expiry is counted from, which may be long before the
    /// commit. An own time is known again, after a restart, as the time between
    /// the two.
    pub(crate) fn written_at(&self) -> SystemTime {
        let expires_at = match self.op {
            Some(Op::Put { expires_at, .. }) => expires_at,
            _ => None,
        };
        let counted_back = expires_at.zip(self.ttl);
        let counted_back = counted_back.and_then(|(end, ttl)| end.checked_sub(ttl));
        counted_back.unwrap_or(self.at).min(self.at)
    }
}
