//! Whether a map accepts writes.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

pub(super) const OPEN: u64 = 0;
pub(super) const CLOSING: u64 = 1;
pub(super) const CLOSED: u64 = 2;

/// The lowest bits hold the phase; the bits above count its changes.
const PHASE: u64 = 3;

/// The phase of a map: open, closing or closed.
pub(super) struct Phase(AtomicU64);

/// One attempt to close a map. If it fails and the map is closed again, that is
/// another attempt.
#[derive(Clone, Copy)]
pub(super) struct Closing(u64);

impl Phase {
    pub(super) fn open() -> Self {
        Self(AtomicU64::new(OPEN))
    }

    pub(super) fn is(&self, phase: u64) -> bool {
        self.0.load(Acquire) & PHASE == phase
    }

    /// Moves from phase `from` to phase `to`; returns whether it did.
    pub(super) fn turn(&self, from: u64, to: u64) -> bool {
        let next = |now| (now & PHASE == from).then(|| turned(now, to));
        self.0.fetch_update(AcqRel, Acquire, next).is_ok()
    }

    /// The attempt to close that is under way.
    pub(super) fn closing(&self) -> Option<Closing> {
        let now = self.0.load(Acquire);
        (now & PHASE == CLOSING).then_some(Closing(now))
    }

    /// Ends this attempt to close, unless it is over already; returns whether it
    /// did.
    ///
    /// It is not enough to check that the map is closing: if the map was open in
    /// between, the first attempt has not seen the writes of that time.
    pub(super) fn end(&self, closing: Closing) -> bool {
        let Closing(now) = closing;
        let ended = turned(now, CLOSED);
        self.0.compare_exchange(now, ended, AcqRel, Acquire).is_ok()
    }
}

fn turned(now: u64, to: u64) -> u64 {
    (now & !PHASE).wrapping_add(PHASE + 1) | to
}
