//! The slot of a key: its value, and how far its saving has come.

use super::save_state::{Mark, SaveState, StoredVersion};
use crate::{batch::Expect, map::lifetime::Lifetime};

/// What a key holds.
///
/// A removed key that the store may know stays as `Gone` until its deletion is
/// committed: without it, the deletion would be forgotten, or a reload would
/// bring the entry back.
pub(crate) enum Slot<V, X> {
    Live {
        value: V,
        /// How long it lives; nothing for a map without expiry.
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

    /// The value and its lease, if there is one and it has not expired.
    #[inline]
    pub(crate) fn live<L: Lifetime<V, Lease = X>>(&self, lifetime: &L) -> Option<(&V, &X)> {
        match self {
            Self::Live { value, lease, .. } if lifetime.is_live(lease) => Some((value, lease)),
            _ => None,
        }
    }

    /// The value, if there is one, whether it has expired or not.
    pub(crate) fn value(&self) -> Option<&V> {
        match self {
            Self::Live { value, .. } => Some(value),
            Self::Gone { .. } => None,
        }
    }

    /// How long the value lives, if there is one.
    pub(crate) fn lease(&self) -> Option<&X> {
        match self {
            Self::Live { lease, .. } => Some(lease),
            Self::Gone { .. } => None,
        }
    }

    /// Whether the store has it as it is.
    pub(crate) fn is_clean(&self) -> bool {
        self.state().mark == Mark::Clean
    }

    /// The condition that no other process has written the entry since.
    pub(crate) fn is_unchanged(&self) -> Expect {
        match self {
            // A process that removed an expired value has changed nothing.
            Self::Live { state, .. } if state.is_over_expired => Expect::Absent,
            Self::Live { state, .. } | Self::Gone { state } => state.stored.is_unchanged(),
        }
    }

    /// This is the version in the store.
    pub(crate) fn learn(&mut self, stored: StoredVersion) {
        let state = self.state_mut();
        state.stored = stored;
        state.is_over_expired = false;
    }

    /// Whether there is nothing but the mark of a commit in flight.
    pub(crate) fn is_empty_in_flight(&self) -> bool {
        self.is_gone() && self.state().mark == Mark::Proposed
    }

    /// Whether its value has expired, and any process may remove what the store has of it.
    pub(crate) fn has_expired(&self) -> bool {
        self.is_gone() && self.state().is_automatic
    }

    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    /// Puts a value into the slot and hands out the one it held.
    pub(crate) fn put(&mut self, value: V, lease: X) -> Option<(V, X)> {
        let state = *self.state();
        let new = Self::Live {
            value,
            lease,
            state,
        };
        std::mem::replace(self, new).into_value()
    }

    /// Takes the value out of the slot and leaves a tombstone.
    pub(crate) fn bury(&mut self) -> Option<(V, X)> {
        let state = *self.state();
        std::mem::replace(self, Self::Gone { state }).into_value()
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
