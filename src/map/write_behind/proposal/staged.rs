//! A staged change of one key in an atomic commit.

use std::time::{Duration, SystemTime};

use crate::batch::{Expect, Op};

/// The staged change of one key.
pub(crate) struct StagedChange<V> {
    /// `None` for a key with a requirement only, and for a value that is not
    /// encoded yet.
    pub(crate) op: Option<Op>,
    pub(crate) expect: Option<Expect>,
    /// The value that the change puts.
    pub(crate) value: Option<V>,
    pub(crate) ttl: Option<Duration>,
    /// When it was written.
    pub(crate) at: SystemTime,
}

impl<V> StagedChange<V> {
    /// Whether the key is changed.
    pub(crate) fn is_change(&self) -> bool {
        self.op.is_some() || self.value.is_some()
    }

    /// The required state of the key; any state by default.
    pub(crate) fn expect(&self) -> Expect {
        self.expect.unwrap_or_default()
    }

    /// The write time from which its expiry is counted; possibly long before the
    /// commit. After a restart, the entry's own time to live is computed as the
    /// time between the two.
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
