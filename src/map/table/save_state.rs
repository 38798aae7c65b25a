//! How far the saving of an entry has come: a state machine.

use crate::{batch::Expect, record::Revision};

/// How far the saving of an entry has come, in two words: with millions of entries, each
/// word is felt.
///
/// It changes by [events](Event) only, while the entry's shard is locked for writing,
/// together with the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SaveState {
    /// The version in the store, as far as the map knows.
    pub(crate) stored: StoredVersion,
    /// Where the key is in the queue, while it is queued.
    pub(crate) place: u32,
    pub(crate) mark: Mark,
    /// The pending change is automatic: the entry expired, or its value was brought into
    /// another shape. It may only replace the version that is known.
    pub(crate) is_automatic: bool,
    /// The value was written over one that had expired, and that any process may have
    /// removed.
    pub(crate) is_over_expired: bool,
}

/// The version of an entry in the store, as far as the map knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredVersion(u64);

impl StoredVersion {
    /// The store has no such entry.
    pub(crate) const ABSENT: Self = Self(0);
    /// The store may have it, under an unknown revision.
    pub(crate) const UNKNOWN: Self = Self(u64::MAX);
    /// The store has it, and no commit of this crate wrote it.
    pub(crate) const UNNUMBERED: Self = Self(u64::MAX - 1);

    /// Written by the commit of that revision. A store that numbers nothing says only that
    /// there may be something.
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

    /// The condition that no other process has written the entry since. If it is not known
    /// whether there is one, whatever is found has to be looked at: it may be of this map's
    /// own making.
    pub(crate) fn is_unchanged(self) -> Expect {
        match self {
            Self::ABSENT | Self::UNKNOWN => Expect::Absent,
            Self::UNNUMBERED => Expect::At(Revision::ZERO),
            Self(revision) => Expect::At(Revision::new(revision)),
        }
    }
}

/// Where an entry is on its way into the store.
///
/// A background batch takes the value as it is:
///
/// ```text
///           written                taken                committed
///   Clean ────────▶ Queued ────────────────▶ Saving ───────────────▶ Clean
///                     ▲                        │ written
///                     │ committed              ▼
///                     └───────────────── SavingQueued
/// ```
///
/// A conditional save, an atomic batch or a transaction changes the store first, and memory
/// takes it over. From before the first attempt until the outcome is known, each of its
/// entries is marked, if need be an empty one:
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
/// So a write meanwhile, a removal included, is known to come later: it goes to the store
/// behind that commit, and is not undone by it. All transitions:
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
    /// The store has the entry as it is.
    Clean,
    /// Changed since, and in the queue.
    Queued,
    /// Part of the commit in flight, and not changed since.
    Saving,
    /// Part of the commit in flight, changed since, and in the queue.
    SavingQueued,
    /// Part of a commit in flight that memory takes over.
    Proposed,
    /// The same, with an automatic change in the queue, which gives way to the commit.
    ProposedQueued,
    /// The store will not take the change.
    Refused,
}

/// What happens to an entry, as far as its saving is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its value was written or removed.
    Written,
    /// It changes without being written: it has expired, its value was brought into another
    /// shape, or it has to be compared with the store.
    Automatic,
    /// It was read, and the store is to be told of its new expiry.
    Touched,
    /// A batch takes it.
    Taken,
    /// A commit that memory takes over is about to be sent. If an earlier write is pending,
    /// it stays so, and is the later one.
    Proposed { behind_write: bool },
    /// The commit in flight is in the store, which has this version now.
    Committed(StoredVersion),
    /// The commit in flight was not applied, unless it is uncertain. The change waits again.
    Failed { uncertain: bool },
    /// The store will not take the change, and has not taken it, unless it is uncertain.
    Refused { uncertain: bool },
    /// The commit in flight was not applied, or left the value alone.
    Withdrawn,
    /// The version of the store takes its place, or it is about to leave memory.
    Replaced(StoredVersion),
}

/// What a transition means for the queue of dirty keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueMove {
    Stay,
    PushBack,
    /// Before all others: the key has waited its turn before. A flush that waits for the
    /// older change must not leave the newer one in its place for later.
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

    /// Part of the commit in flight.
    pub(crate) fn is_in_flight(self) -> bool {
        self.is_proposed() || matches!(self, Self::Saving | Self::SavingQueued)
    }

    /// Part of a commit in flight that memory takes over.
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

    /// What an event makes of it; says what that means for the queue.
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
                self.doubt();
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
        // A change that was made meanwhile keeps what was noted of it.
        if self.mark == Mark::Clean {
            self.is_over_expired = false;
        }
        self.is_automatic &= before == Mark::SavingQueued;
    }

    /// The store may have the entry: from now on it has to be told of a removal.
    pub(crate) fn doubt(&mut self) {
        if self.stored == StoredVersion::ABSENT {
            self.stored = StoredVersion::UNKNOWN;
        }
    }
}

#[cfg(test)]
mod tests;
