//! Derives the deadlines of an entry from its stored record: write time and expiry.

use std::time::Duration;

use super::{
    deadlines::{Kind, Millis, NEVER, millis},
    lease::{Expiring, Expiry, Lease},
};
use crate::record::Record;

impl<V> Expiring<V> {
    /// The kind of a stored deadline. In a map without a time to live, a deadline
    /// that reads do not extend is the entry's own, whichever program wrote it.
    fn kind(&self, stored: Millis) -> Kind {
        let Expiry {
            time_to_live: live,
            time_to_idle: idle,
            ..
        } = &self.chosen;
        match Kind::of(stored) {
            Kind::Idle if idle.is_some() => Kind::Idle,
            _ if live.is_none() => Kind::Own,
            Kind::Own => Kind::Own,
            Kind::Live | Kind::Idle => Kind::Live,
        }
    }

    /// When the entry was written; now, if the writer's clock was too far ahead.
    fn written(&self, record: &Record) -> Option<Millis> {
        let written = record.updated_at?;
        if self.clock.is_glitch(written) {
            return Some(self.now());
        }
        Some(millis(written))
    }

    /// When the entry expires. If it was written with a clock that was too far
    /// ahead, its time to live counts from now. The store keeps the later expiry
    /// until the entry is written again.
    pub(crate) fn ends(&self, record: &Record) -> Millis {
        let ends = record.expires_at.map_or(NEVER, millis);
        let glitch = record.updated_at.filter(|at| self.clock.is_glitch(*at));
        let given = glitch.and_then(|at| ends.checked_sub(millis(at)));
        match given {
            Some(given) if ends != NEVER => {
                let sooner = self.now().saturating_add(given);
                self.kind(ends).mark(sooner).min(ends)
            }
            _ => ends,
        }
    }

    /// Both deadlines of a stored entry.
    ///
    /// If reads move a deadline, only the earlier of the two is stored. If that is
    /// the idle deadline, the other is counted from the last write. If it is the
    /// time to live, the idle deadline is counted from now, as if the entry had
    /// just been read: for an entry that got its times when the map was
    /// [opened](Self::begin_unless_timed), the store holds no other time.
    pub(crate) fn stored_deadlines(&self, record: &Record) -> (Millis, Millis) {
        let ends = self.ends(record);
        match self.kind(ends) {
            _ if ends == NEVER => (NEVER, NEVER),
            Kind::Own => (ends, NEVER),
            Kind::Live => (ends, self.idle_from_now()),
            Kind::Idle => {
                let written = self.written(record).zip(self.chosen.time_to_live);
                let limit = written.map_or(NEVER, |(at, ttl)| Kind::Live.after(at, ttl));
                (limit, ends)
            }
        }
    }

    /// Gives the map's times to an entry without an expiry; returns whether it did.
    ///
    /// The deadline that reads do not move is stored, if there is one. The store
    /// keeps the entry's write time, which may be long ago, so that deadline could
    /// not be computed from it again.
    pub(crate) fn begin_unless_timed(&self, lease: &mut Lease) -> bool {
        let idle_until = lease.idle_until.get_mut();
        if lease.live_until != NEVER || *idle_until != NEVER {
            return false;
        }
        (lease.live_until, *idle_until) = self.deadlines(None, self.now());
        *lease.last_stored.get_mut() = if lease.live_until == NEVER {
            *idle_until
        } else {
            lease.live_until
        };
        *lease.last_stored.get_mut() != NEVER
    }

    /// The own time to live of a stored entry. It is not stored itself: it is the
    /// time from the write to the expiry.
    pub(crate) fn own_of(&self, record: &Record) -> Option<Duration> {
        let (ends, written) = record.expires_at.zip(record.updated_at)?;
        let is_own = self.kind(millis(ends)) == Kind::Own;
        is_own.then(|| ends.duration_since(written).ok())?
    }
}
