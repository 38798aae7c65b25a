//! The slot of a key: its value and its save state.

use std::mem::replace;

use super::save_state::{Mark, SaveState, StoredVersion};
use crate::{batch::Expect, map::lifetime::Lifetime};

/// The contents of a slot.
///
/// A removed key that the store may have stays as a tombstone, `Gone`, until its
/// deletion is committed. Without it, the deletion would be forgotten, or a reload
/// would bring the entry back.
pub(crate) enum Slot<V, X> {
    Live {
        value: V,
        /// The expiry state; `()` in a map without expiry.
        lease: X,
        state: SaveState,
    },
    Gone {
        state: SaveState,
    },
}

impl<V, X> Slot<V, X> {
    pub(crate) fn state(&self) -> &SaveState {
        match self {
            Self::Live { state, .. } | Self::Gone { state, .. } => state,
        }
    }

    pub(crate) fn state_mut(&mut self) -> &mut SaveState {
        match self {
            Self::Live { state, .. } | Self::Gone { state, .. } => state,
        }
    }

    /// The value and its lease, if there is a value and it has not expired.
    #[inline]
    pub(crate) fn live<L: Lifetime<V, Lease = X>>(&self, lifetime: &L) -> Option<(&V, &X)> {
        match self {
            Self::Live { value, lease, .. } if lifetime.is_live(lease) => Some((value, lease)),
            _ => None,
        }
    }

    /// The value, even if it has expired.
    pub(crate) fn value(&self) -> Option<&V> {
        match self {
            Self::Live { value, .. } => Some(value),
            Self::Gone { .. } => None,
        }
    }

    /// The lease of the value.
    pub(crate) fn lease(&self) -> Option<&X> {
        match self {
            Self::Live { lease, .. } => Some(lease),
            Self::Gone { .. } => None,
        }
    }

    /// Whether the store has the entry in its current state.
    pub(crate) fn is_clean(&self) -> bool {
        self.state().mark == Mark::Clean
    }

    /// The condition that no other process has written the entry since this map
    /// last did.
    pub(crate) fn is_unchanged(&self) -> Expect {
        match self {
            // An expired value may have been removed by any process; that is not a
            // change.
            Self::Live { state, .. } if state.is_over_expired => Expect::Absent,
            Self::Live { state, .. } | Self::Gone { state } => state.stored.is_unchanged(),
        }
    }

    /// Records the version in the store.
    pub(crate) fn learn(&mut self, stored: StoredVersion) {
        let state = self.state_mut();
        state.stored = stored;
        state.is_over_expired = false;
    }

    /// Whether the slot exists only to mark a commit in flight.
    pub(crate) fn is_empty_in_flight(&self) -> bool {
        self.is_gone() && self.state().mark == Mark::Proposed
    }

    /// Whether the slot's value has expired, so that any process may remove the
    /// stored entry.
    pub(crate) fn has_expired(&self) -> bool {
        self.is_gone() && self.state().is_automatic
    }

    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    /// Puts a value into the slot and returns the previous one.
    pub(crate) fn put(&mut self, value: V, lease: X) -> Option<(V, X)> {
        match self {
            // In place: a copy of the state, just after its mark was written, would
            // stall until that byte has left the processor's store buffer.
            Self::Live {
                value: own_value,
                lease: own_lease,
                ..
            } => Some((replace(own_value, value), replace(own_lease, lease))),
            Self::Gone { state } => {
                let state = *state;
                *self = Self::Live {
                    value,
                    lease,
                    state,
                };
                None
            }
        }
    }

    /// Replaces the value by a tombstone and returns it.
    pub(crate) fn bury(&mut self) -> Option<(V, X)> {
        let state = *self.state();
        replace(self, Self::Gone { state }).into_value()
    }

    pub(crate) fn into_value(self) -> Option<(V, X)> {
        match self {
            Self::Live { value, lease, .. } => Some((value, lease)),
            Self::Gone { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_two_words_larger_than_its_value() {
        assert_eq!(size_of::<Slot<u64, ()>>(), size_of::<u64>() + 16);
        assert_eq!(size_of::<Slot<String, ()>>(), size_of::<String>() + 16);
    }
}
