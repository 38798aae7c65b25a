//! The save state of an entry: a state machine.

use crate::{batch::Expect, record::Revision};

/// The save state of an entry, in two words: with millions of entries, each word
/// counts.
///
/// It changes only by [events](Event), while the entry's shard is locked for
/// writing, together with the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SaveState {
    /// The version in the store, as far as the map knows.
    pub(crate) stored: StoredVersion,
    /// The place of the key in the queue, while it is queued.
    pub(crate) place: u32,
    pub(crate) mark: Mark,
    /// The pending change is automatic: the entry expired, or its value was
    /// migrated. It may only replace the known stored version.
    pub(crate) is_automatic: bool,
    /// The value was written over an expired one, which any process may have
    /// removed.
    pub(crate) is_over_expired: bool,
}

/// The version of an entry in the store, as far as the map knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredVersion(u64);

impl StoredVersion {
    /// The store has no such entry.
    pub(crate) const ABSENT: Self = Self(0);
    /// The store may have it, at an unknown revision.
    pub(crate) const UNKNOWN: Self = Self(u64::MAX);
    /// The store has it, but no commit of this crate wrote it.
    pub(crate) const UNNUMBERED: Self = Self(u64::MAX - 1);

    /// The version written by the commit of that revision. `None`, from a store
    /// without revisions, only means that there may be an entry.
    pub(crate) fn at(revision: Option<Revision>) -> Self {
        match revision {
            None => Self::UNKNOWN,
            Some(Revision::ZERO) => Self::UNNUMBERED,
            Some(revision) => Self(revision.get()),
        }
    }

    pub(crate) fn revision(self) -> Option<Revision> {
        let is_numbered = ![Self::ABSENT, Self::UNKNOWN, Self::UNNUMBERED].contains(&self);
        is_numbered.then(|| Revision::new(self.0))
    }

    /// The condition that no other process has written the entry since. If it is
    /// unknown whether there is an entry, any found entry must be compared: this
    /// map may have written it itself.
    pub(crate) fn is_unchanged(self) -> Expect {
        match self {
            Self::ABSENT | Self::UNKNOWN => Expect::Absent,
            Self::UNNUMBERED => Expect::At(Revision::ZERO),
            Self(revision) => Expect::At(Revision::new(revision)),
        }
    }
}

/// The position of an entry on its way to the store.
///
/// A background batch takes the current value:
///
/// ```text
///           written                taken                committed
///   Clean ────────▶ Queued ────────────────▶ Saving ───────────────▶ Clean
///                     ▲                        │ written
///                     │ committed              ▼
///                     └───────────────── SavingQueued
/// ```
///
/// Conditional saves, atomic batches and transactions change the store first and
/// memory afterwards. From before the first attempt until the outcome is known,
/// each of their entries is marked; a missing entry gets an empty slot for it:
///
/// ```text
///           proposed               committed, or withdrawn
///   Clean ────────────▶ Proposed ──────────────────────▶ Clean
///                          │ automatic change
///                          ▼
///   Queued ───────▶ ProposedQueued ──▶ Clean if committed, or else Queued
///   (automatic)            │ written
///                          ▼ (from Proposed as well)
///   Queued ────────▶ SavingQueued ─────────────────────▶ Queued
/// ```
///
/// A write made meanwhile, including a removal, is therefore known to be later: it
/// is committed after that commit and not undone by it. All transitions:
///
/// | event | Clean | Queued | Saving | SavingQueued | Proposed | ProposedQueued | Refused |
/// | --- | --- | --- | --- | --- | --- | --- | --- |
/// | written | Queued | | SavingQueued | | SavingQueued | SavingQueued | Queued |
/// | automatic | Queued | | SavingQueued | | ProposedQueued | | Queued |
/// | taken | | Saving | | | | | |
/// | proposed, behind a write | Proposed | SavingQueued | | | | | |
/// | proposed otherwise | Proposed | ProposedQueued | | | | | |
/// | committed | | | Clean | Queued | Clean | Clean | |
/// | withdrawn | | | | Queued | Clean | Queued | |
/// | failed | | | Queued, first | Queued, first | | | |
/// | refused | | | Refused | Queued, first | | | |
/// | replaced | Clean | Clean | Clean | Clean | Clean | Clean | Clean |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The store has the entry in its current state.
    Clean,
    /// Changed since the last commit, and queued.
    Queued,
    /// Part of the commit in flight, and not changed since it was taken.
    Saving,
    /// Part of the commit in flight, changed since it was taken, and queued.
    SavingQueued,
    /// Part of a proposal in flight: a commit that is applied to memory
    /// afterwards.
    Proposed,
    /// Like `Proposed`, with an automatic change queued, which gives way to the
    /// commit.
    ProposedQueued,
    /// The store refused the change.
    Refused,
}

/// An event in the life of an entry that concerns its saving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its value was written or removed.
    Written,
    /// It changes without a write: it has expired, its value was migrated, or it
    /// must be compared with the store.
    Automatic,
    /// It was read, and the new expiry must be stored.
    Touched,
    /// A batch takes it.
    Taken,
    /// A proposal is about to be sent. With `behind_write`, a write is pending
    /// already; it stays pending and counts as later than the proposal.
    Proposed { behind_write: bool },
    /// The commit in flight is in the store, which now has this version.
    Committed(StoredVersion),
    /// The commit in flight was not applied, unless `uncertain`. The change is
    /// queued again.
    Failed { uncertain: bool },
    /// The store refused the change and did not apply it, unless `uncertain`.
    Refused { uncertain: bool },
    /// The commit in flight was not applied, or did not change the value.
    Withdrawn,
    /// The stored version replaces the entry, or the entry is about to leave
    /// memory.
    Replaced(StoredVersion),
}

/// The effect of a transition on the dirty queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueMove {
    Stay,
    PushBack,
    /// In front of all others, because the key has waited before. A flush that
    /// waits for the older change must not skip the newer one that replaces it.
    PushFront,
    Remove,
}

impl Mark {
    pub(crate) fn is_queued(self) -> bool {
        matches!(
            self,
            Self::Queued | Self::SavingQueued | Self::ProposedQueued
        )
    }

    /// Whether it is part of a commit in flight.
    pub(crate) fn is_in_flight(self) -> bool {
        self.is_proposed() || matches!(self, Self::Saving | Self::SavingQueued)
    }

    /// Whether it is part of a proposal in flight.
    pub(crate) fn is_proposed(self) -> bool {
        matches!(self, Self::Proposed | Self::ProposedQueued)
    }

    #[inline]
    #[expect(clippy::match_same_arms, reason = "they follow the rows of the table")]
    fn after(self, event: Event) -> Self {
        use Mark::{Clean, Proposed, ProposedQueued, Queued, Refused, Saving, SavingQueued};
        match (event, self) {
            (Event::Replaced(_), _) => Clean,
            (Event::Written | Event::Automatic | Event::Touched, Clean | Refused) => Queued,
            (Event::Written, Saving | Proposed | ProposedQueued) => SavingQueued,
            (Event::Automatic | Event::Touched, Saving) => SavingQueued,
            (Event::Automatic | Event::Touched, Proposed) => ProposedQueued,
            (Event::Taken, Queued) => Saving,
            (Event::Proposed { behind_write: true }, Queued) => SavingQueued,
            (Event::Proposed { .. }, Queued) => ProposedQueued,
            (Event::Proposed { .. }, Clean) => Proposed,
            (Event::Committed(_), Saving | Proposed | ProposedQueued) => Clean,
            (Event::Withdrawn, Proposed) => Clean,
            (Event::Withdrawn, ProposedQueued) => Queued,
            (Event::Committed(_) | Event::Withdrawn, SavingQueued) => Queued,
            (Event::Failed { .. }, Saving | SavingQueued) => Queued,
            (Event::Refused { .. }, Saving) => Refused,
            (Event::Refused { .. }, SavingQueued) => Queued,
            (_, unchanged) => unchanged,
        }
    }
}

impl SaveState {
    /// The state of an entry whose stored version is known.
    pub(crate) fn new(stored: StoredVersion) -> Self {
        Self {
            stored,
            place: 0,
            mark: Mark::Clean,
            is_automatic: false,
            is_over_expired: false,
        }
    }

    /// Applies an event; returns its effect on the queue.
    #[inline]
    pub(crate) fn apply(&mut self, event: Event) -> QueueMove {
        let (before, after) = (self.mark, self.mark.after(event));
        self.mark = after;
        match event {
            Event::Written => self.is_automatic = false,
            Event::Automatic => self.is_automatic = true,
            Event::Committed(stored) if before.is_in_flight() => self.has(stored, before),
            Event::Failed { uncertain: true } | Event::Refused { uncertain: true }
                if before.is_in_flight() =>
            {
                self.assume_stored();
            }
            Event::Replaced(stored) => *self = Self::new(stored),
            _ => {}
        }
        let goes_first = matches!(event, Event::Failed { .. } | Event::Refused { .. });
        match (before.is_queued(), after.is_queued()) {
            (false, true) if goes_first => QueueMove::PushFront,
            (false, true) => QueueMove::PushBack,
            (true, false) => QueueMove::Remove,
            (true, true) if goes_first && before != after => QueueMove::PushFront,
            _ => QueueMove::Stay,
        }
    }

    fn has(&mut self, stored: StoredVersion, before: Mark) {
        self.stored = stored;
        // A change made meanwhile keeps its flags.
        if self.mark == Mark::Clean {
            self.is_over_expired = false;
        }
        self.is_automatic &= before == Mark::SavingQueued;
    }

    /// The store may have the entry: from now on, a removal must be committed.
    pub(crate) fn assume_stored(&mut self) {
        if self.stored == StoredVersion::ABSENT {
            self.stored = StoredVersion::UNKNOWN;
        }
    }
}

#[cfg(test)]
mod tests;
