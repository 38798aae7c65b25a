//! The times of an entry, from what the store keeps of them: when it was
//! written, and when it expires.

use std::time::Duration;

use super::{
    deadlines::{Kind, Millis, NEVER, millis},
    lease::{Expiring, Expiry, Lease},
};
use crate::record::Record;

impl<V> Expiring<V> {
    /// What the deadline of an entry from the store is counted by. In a map
    /// without a time to live, what reads do not prolong has a time of its own,
    /// whoever has written it.
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

    /// When that entry was written; now, if the writer's clock was too far ahead.
    fn written(&self, record: &Record) -> Option<Millis> {
        let written = record.updated_at?;
        if self.clock.is_glitch(written) {
            return Some(self.now());
        }
        Some(millis(written))
    }

    /// When that entry expires. Written under a clock that was too far ahead, it
    /// lives from now on for as long as it was given. The store keeps the later
    /// time, until the entry is written again.
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

    /// Both deadlines of an entry from the store.
    ///
    /// Where reads move a deadline, only the earlier one of the two is stored. If
    /// that is the moved one, the other is counted from the last write anew. If it
    /// is the other, the entry may be idle for as long as it could be had it been
    /// read just now: of an entry that got its times when the map was
    /// [opened](Self::begin_unless_timed), the store knows no more.
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

    /// An entry that nothing has given a time gets those of the map; says whether
    /// it did.
    ///
    /// The store is told the deadline that reads do not move, if there is one: it
    /// keeps the time of the entry's write, which may be long ago, and from which
    /// that deadline could not be counted again.
    pub(crate) fn begin_unless_timed(&self, lease: &mut Lease) -> bool {
        let idle_until = lease.idle_until.get_mut();
        if lease.live_until != NEVER || *idle_until != NEVER {
            return false;
        }
        (lease.live_until, *idle_until) = self.deadlines(None, self.now());
        *lease.told.get_mut() = if lease.live_until == NEVER {
            *idle_until
        } else {
            lease.live_until
        };
        *lease.told.get_mut() != NEVER
    }

    /// The store keeps no own time: it is the time from the write to the expiry.
    pub(crate) fn own_of(&self, record: &Record) -> Option<Duration> {
        let (ends, written) = record.expires_at.zip(record.updated_at)?;
        let is_own = self.kind(millis(ends)) == Kind::Own;
        is_own.then(|| ends.duration_since(written).ok())?
    }
}
