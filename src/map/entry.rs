//! The slot of a key: its value, and what its saving has come to.

use super::lifetime::Lifetime;
use crate::{batch::Expect, record::Revision};

/// What a key holds.
///
/// A removed key that the store may know stays as `Gone` until its deletion is
/// committed: without it, the deletion would be forgotten, or a reload would
/// bring the entry back.
pub(super) enum Slot<V, X> {
    Live {
        value: V,
        /// How long it lives; nothing for a map without expiry.
        lease: X,
        trail: Trail,
    },
    Gone {
        trail: Trail,
    },
}

/// What is known of an entry's saving, in two words: with millions of entries,
/// each word is felt.
#[derive(Clone, Copy)]
pub(super) struct Trail {
    /// The commit that last wrote the entry; see [`Known`].
    pub(super) known: Known,
    /// Where the key stands in the queue, while it is queued.
    pub(super) place: u32,
    pub(super) mark: Mark,
    /// Of what is pending: nobody asked for it. Time ended the entry, or its
    /// value was brought into another shape. Only the very entry that is known
    /// is to be deleted from the store, or rewritten.
    pub(super) unasked: bool,
    /// Of an entry: it was written over one that had expired, and that anybody may
    /// have swept.
    pub(super) over_expired: bool,
}

impl Trail {
    pub(super) fn new(known: Known) -> Self {
        Self {
            known,
            place: 0,
            mark: Mark::Clean,
            unasked: false,
            over_expired: false,
        }
    }

    /// The store may have the entry: a removal of it has to be told from now on.
    pub(super) fn doubt(&mut self) {
        if self.known == Known::NOT {
            self.known = Known::MAYBE;
        }
    }
}

/// What the store knows of an entry, as far as the map knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Known(u64);

impl Known {
    /// The store has no such entry.
    pub(super) const NOT: Self = Self(0);
    /// The store may have it; of which revision is not known.
    pub(super) const MAYBE: Self = Self(u64::MAX);
    /// The store has it, and no commit wrote it.
    pub(super) const UNNUMBERED: Self = Self(u64::MAX - 1);

    /// The commit of that revision wrote it. A store that numbers nothing says
    /// only that there may be something.
    pub(super) fn at(revision: Option<Revision>) -> Self {
        match revision {
            None => Self::MAYBE,
            Some(Revision::ZERO) => Self::UNNUMBERED,
            Some(revision) => Self(revision.get()),
        }
    }

    pub(super) fn revision(self) -> Option<Revision> {
        let numbered = ![Self::NOT, Self::MAYBE, Self::UNNUMBERED].contains(&self);
        numbered.then(|| Revision::new(self.0))
    }

    /// The condition that nobody else has written the entry since.
    ///
    /// Where it is not known whether there is one, whatever is found has to be
    /// looked at: it may be of this map's own making.
    fn unchanged(self) -> Expect {
        match self {
            Self::NOT | Self::MAYBE => Expect::Absent,
            Self::UNNUMBERED => Expect::At(Revision::ZERO),
            Self(revision) => Expect::At(Revision::new(revision)),
        }
    }
}

/// How far the saving of an entry has come. It changes only while the entry's
/// shard is locked for writing, together with the value.
///
/// ```text
///           write                  taken                committed
///   Clean ────────▶ Queued ────────────────▶ Saving ───────────────▶ Clean
///                     ▲                        │ write
///                     │ committed              ▼
///                     └───────────────── SavingQueued
/// ```
///
/// A failed commit turns `Saving` into `Queued`; a refused change is `Refused`
/// until the next write to it.
///
/// A conditional save, an atomic batch or a transaction changes an entry in the
/// store first. From before its first attempt until its fate is known, each of its
/// entries is marked, if need be an empty one:
///
/// ```text
///           proposed               committed, or not
///   Clean ────────────▶ Proposed ──────────────────────▶ Clean
///                          │ expired, read
///                          ▼
///   Queued ───────▶ ProposedQueued ──▶ Clean if committed, or else Queued
///   (unasked)              │ write
///                          ▼ (from Proposed as well)
///   Queued ────────▶ SavingQueued ─────────────────────▶ Queued
/// ```
///
/// So a write meanwhile, a removal too, is known to come later: it goes to the
/// store behind that commit, and is not undone by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The store has it as it is.
    Clean,
    /// Changed since, and in the queue.
    Queued,
    /// Part of the commit in flight, and not changed since.
    Saving,
    /// Part of the commit in flight, changed since, and in the queue again.
    SavingQueued,
    /// Clean, and part of a commit in flight that memory takes over once it is known
    /// to be in the store.
    Proposed,
    /// The same, with an unasked change in the queue, which gives way to the commit.
    ProposedQueued,
    /// The store will not take it.
    Refused,
}

impl Mark {
    /// Part of the commit in flight.
    pub(super) fn is_saving(self) -> bool {
        self.is_proposed() || matches!(self, Self::Saving | Self::SavingQueued)
    }

    /// Part of a commit in flight that memory takes over.
    pub(super) fn is_proposed(self) -> bool {
        matches!(self, Self::Proposed | Self::ProposedQueued)
    }

    /// What it is without the commit that was in flight.
    pub(super) fn landed(self) -> Self {
        match self {
            Self::Proposed => Self::Clean,
            Self::ProposedQueued | Self::SavingQueued => Self::Queued,
            Self::Clean | Self::Queued | Self::Saving | Self::Refused => self,
        }
    }
}

impl<V, X> Slot<V, X> {
    pub(super) fn trail(&self) -> &Trail {
        match self {
            Self::Live { trail, .. } | Self::Gone { trail, .. } => trail,
        }
    }

    pub(super) fn trail_mut(&mut self) -> &mut Trail {
        match self {
            Self::Live { trail, .. } | Self::Gone { trail, .. } => trail,
        }
    }

    /// The value and its lease, if there is one and it has not expired.
    #[inline]
    pub(super) fn live<L: Lifetime<V, Lease = X>>(&self, lifetime: &L) -> Option<(&V, &X)> {
        match self {
            Self::Live { value, lease, .. } if lifetime.is_live(lease) => Some((value, lease)),
            _ => None,
        }
    }

    /// The value, if there is one, whether it has expired or not.
    pub(super) fn value(&self) -> Option<&V> {
        match self {
            Self::Live { value, .. } => Some(value),
            Self::Gone { .. } => None,
        }
    }

    /// How long the value lives, if there is one.
    pub(super) fn lease(&self) -> Option<&X> {
        match self {
            Self::Live { lease, .. } => Some(lease),
            Self::Gone { .. } => None,
        }
    }

    /// Whether the store has it as it is.
    pub(super) fn is_clean(&self) -> bool {
        self.trail().mark == Mark::Clean
    }

    /// The condition that nobody else has written the entry since.
    pub(super) fn unchanged(&self) -> Expect {
        match self {
            // Whoever swept what had expired has changed nothing.
            Self::Live { trail, .. } if trail.over_expired => Expect::Absent,
            Self::Live { trail, .. } | Self::Gone { trail } => trail.known.unchanged(),
        }
    }

    /// That is what the store has here.
    pub(super) fn learn(&mut self, known: Known) {
        let trail = self.trail_mut();
        trail.known = known;
        trail.over_expired = false;
    }

    /// Whether there is nothing but the mark of a commit in flight.
    pub(super) fn is_empty_in_flight(&self) -> bool {
        self.is_gone() && self.trail().mark == Mark::Proposed
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    /// Puts a value into the slot and hands out the one it held.
    pub(super) fn put(&mut self, value: V, lease: X) -> Option<(V, X)> {
        let old = self.trail();
        let trail = Trail {
            unasked: false,
            over_expired: old.over_expired || self.is_gone() && old.unasked,
            ..*old
        };
        let new = Self::Live {
            value,
            lease,
            trail,
        };
        std::mem::replace(self, new).into_value()
    }

    /// Takes the value out of the slot and leaves a tombstone.
    pub(super) fn bury(&mut self, unasked: bool) -> Option<(V, X)> {
        let trail = Trail {
            unasked,
            ..*self.trail()
        };
        std::mem::replace(self, Self::Gone { trail }).into_value()
    }

    pub(super) fn into_value(self) -> Option<(V, X)> {
        match self {
            Self::Live { value, lease, .. } => Some((value, lease)),
            Self::Gone { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row that another program wrote has no revision of ours. It was taken for
    /// an entry that the store never saw, and its removal was not told.
    #[test]
    fn a_record_without_a_revision_may_be_in_the_store() {
        let known = Known::at(Some(Revision::ZERO));
        assert!(known != Known::NOT && known.revision().is_none());
    }

    #[test]
    fn a_slot_is_two_words_larger_than_its_value() {
        assert_eq!(size_of::<Slot<u64, ()>>(), size_of::<u64>() + 16);
        assert_eq!(size_of::<Slot<String, ()>>(), size_of::<String>() + 16);
    }
}
