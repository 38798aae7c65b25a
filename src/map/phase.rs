//! Whether a map takes writes.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

pub(super) const OPEN: u64 = 0;
pub(super) const CLOSING: u64 = 1;
pub(super) const CLOSED: u64 = 2;

/// The lowest bits are the phase, those above count its turns.
const PHASE: u64 = 3;

/// The phase that a map is in.
pub(super) struct Phase(AtomicU64);

/// One closing of a map: if it is opened again and closed anew, that is another.
#[derive(Clone, Copy)]
pub(super) struct Closing(u64);

impl Phase {
    pub(super) fn open() -> Self {
        Self(AtomicU64::new(OPEN))
    }

    pub(super) fn is(&self, phase: u64) -> bool {
        self.0.load(Acquire) & PHASE == phase
    }

    /// Turns the phase, if it is the first one; says whether it did.
    pub(super) fn turn(&self, from: u64, to: u64) -> bool {
        let next = |now| (now & PHASE == from).then(|| turned(now, to));
        self.0.fetch_update(AcqRel, Acquire, next).is_ok()
    }

    /// The closing that is under way.
    pub(super) fn closing(&self) -> Option<Closing> {
        let now = self.0.load(Acquire);
        (now & PHASE == CLOSING).then_some(Closing(now))
    }

    /// Ends that closing, unless it is over; says whether it did.
    ///
    /// That the map is closing is not enough: between two closings it was open,
    /// and what was written then the first one has not seen.
    pub(super) fn end(&self, closing: Closing) -> bool {
        let Closing(now) = closing;
        let ended = turned(now, CLOSED);
        self.0.compare_exchange(now, ended, AcqRel, Acquire).is_ok()
    }
}

fn turned(now: u64, to: u64) -> u64 {
    (now & !PHASE).wrapping_add(PHASE + 1) | to
}
