//! The lease of an entry: how long it lives.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use super::{
    CachingMap,
    deadlines::{FAR, Kind, Millis, NEVER, lasting, length, millis, time},
    schedule::Schedule,
    sweeper::sweep,
};
use crate::{
    clock::MapClock,
    error::{Error, ErrorKind, Result},
    map::lifetime::{Expire, Leases, Plan},
    record::Record,
    trace::MAP,
};

/// Called with the key and the value of each expired entry.
pub(crate) type Listener<V> = Arc<dyn Fn(&str, V) + Send + Sync>;

/// The times set for a caching map.
pub struct Expiry<V> {
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) time_to_idle: Option<Duration>,
    pub(crate) listener: Option<Listener<V>>,
}

/// The [`Lifetime`](crate::Lifetime) of a [`CachingMap`]: entries expire.
pub struct Expiring<V> {
    pub(crate) chosen: Expiry<V>,
    pub(crate) clock: Arc<MapClock>,
    schedule: Arc<Schedule>,
}

/// The deadlines of one entry.
///
/// Reads move `idle_until` and `last_stored` under the shard's read lock; everything else
/// changes under its write lock.
pub struct Lease {
    /// The time-to-live deadline, counted from the last write.
    pub(crate) live_until: Millis,
    /// The time-to-idle deadline, counted from the last write or read.
    pub(crate) idle_until: AtomicU64,
    /// The deadline that was last stored, or is about to be.
    pub(crate) last_stored: AtomicU64,
    /// The deadline that the entry is scheduled for: the real one or an earlier
    /// one.
    scheduled: Millis,
    /// The entry's own time to live, which replaces the map's times.
    own: Option<Duration>,
    only_touched: bool,
}

/// Replaces the idle deadline of an entry that was found past it.
const ENDED: Millis = 0;

impl Lease {
    fn ends(&self) -> Millis {
        self.live_until.min(self.idle_until.load(Relaxed))
    }

    /// Whether the stored deadline is the one that reads move. If it is the other,
    /// reads store nothing until the entry is written.
    fn stores_reads(&self) -> bool {
        self.last_stored.load(Relaxed) != self.live_until
    }
}

impl<V> Expiring<V> {
    pub(crate) fn now(&self) -> Millis {
        millis(self.clock.now())
    }

    /// Both deadlines of an entry written at that time: the one that reads do not
    /// move, and the one that they move.
    pub(crate) fn deadlines(&self, own: Option<Duration>, at: Millis) -> (Millis, Millis) {
        if let Some(own) = own {
            return (Kind::Own.after(at, own).min(FAR), NEVER);
        }
        let after =
            |kind: Kind, wait: Option<Duration>| wait.map_or(NEVER, |wait| kind.after(at, wait));
        let chosen = &self.chosen;
        (
            after(Kind::Live, chosen.time_to_live),
            after(Kind::Idle, chosen.time_to_idle),
        )
    }

    /// The idle deadline of an entry that is read now.
    pub(crate) fn idle_from_now(&self) -> Millis {
        let idle = self.chosen.time_to_idle;
        idle.map_or(NEVER, |idle| Kind::Idle.after(self.now(), idle))
    }

    fn lease(&self, key: &Arc<str>, own: Option<Duration>, was: Millis, at: Millis) -> Lease {
        let own = own.map(lasting);
        let (live_until, idle_until) = self.deadlines(own, at);
        let mut lease = Lease {
            live_until,
            idle_until: idle_until.into(),
            last_stored: live_until.min(idle_until).into(),
            scheduled: was,
            own,
            only_touched: false,
        };
        self.schedule_earlier(key, &mut lease);
        lease
    }

    /// Reschedules an entry whose deadline has moved earlier. If it has moved
    /// later, the sweeper reschedules the entry when the scheduled time comes, so
    /// an entry that is written all the time costs nothing here.
    fn schedule_earlier(&self, key: &Arc<str>, lease: &mut Lease) {
        let ends = lease.ends();
        if ends < lease.scheduled {
            self.schedule.shift(key, lease.scheduled, ends);
            lease.scheduled = ends;
        }
    }
}

impl<V: Send + Sync + 'static> Plan<V> for Expiry<V> {
    type Life = Expiring<V>;
    type Handle = CachingMap<V>;

    fn check(&self) -> Result<()> {
        let too_short = |time: Option<Duration>| time.is_some_and(|t| t < Duration::from_millis(1));
        let problem = if too_short(self.time_to_live) {
            "time_to_live must be at least 1 ms; leave it out for entries that never expire"
        } else if too_short(self.time_to_idle) {
            "time_to_idle must be at least 1 ms; leave it out for entries that never expire when idle"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Invalid, problem))
    }

    fn begin(self, clock: Arc<MapClock>) -> Expiring<V> {
        Expiring {
            chosen: self,
            clock,
            schedule: Arc::default(),
        }
    }
}

impl<V: Send + Sync + 'static> Leases<V> for Expiring<V> {
    type Lease = Lease;
    const EXPIRES: bool = true;

    fn begin(&self, key: &Arc<str>, ttl: Option<Duration>, previous: Option<&Lease>) -> Lease {
        self.lease(
            key,
            ttl,
            previous.map_or(NEVER, |previous| previous.scheduled),
            self.now(),
        )
    }

    fn begin_at(
        &self,
        key: &Arc<str>,
        ttl: Option<Duration>,
        previous: Option<&Lease>,
        at: SystemTime,
    ) -> Lease {
        let was = previous.map_or(NEVER, |previous| previous.scheduled);
        self.lease(key, ttl, was, millis(at))
    }

    fn ends_at(&self, ttl: Option<Duration>, at: SystemTime) -> Option<SystemTime> {
        let (live_until, idle_until) = self.deadlines(ttl, millis(at));
        time(live_until.min(idle_until))
    }

    fn own(&self, lease: &Lease) -> Option<Duration> {
        lease.own
    }

    fn stored_own(&self, record: &Record) -> Option<Duration> {
        self.own_of(record)
    }

    fn adopt(&self, record: &Record) -> Lease {
        let (live_until, idle_until) = self.stored_deadlines(record);
        let mut lease = Lease {
            live_until,
            idle_until: idle_until.into(),
            last_stored: self.ends(record).into(),
            scheduled: NEVER,
            own: self.stored_own(record),
            only_touched: false,
        };
        self.schedule_earlier(&record.key, &mut lease);
        lease
    }

    /// The time of the last read is not stored, so a wall clock that was set back
    /// since can only be noticed here, by an idle deadline that is too far ahead.
    fn loaded(&self, key: &Arc<str>, lease: &mut Lease) -> bool {
        let begins = self.begin_unless_timed(lease);
        let latest = self.idle_from_now();
        let stores_reads = lease.stores_reads();
        let (idle_until, last_stored) = (lease.idle_until.get_mut(), lease.last_stored.get_mut());
        if *idle_until != NEVER && !stores_reads {
            *idle_until = latest;
        } else if *idle_until != NEVER && *idle_until > latest {
            *idle_until = latest;
            *last_stored = latest;
        }
        self.schedule_earlier(key, lease);
        begins
    }

    fn renew(&self, key: &Arc<str>, lease: &mut Lease) {
        *lease = self.lease(key, lease.own, lease.scheduled, self.now());
    }

    fn keep(&self, lease: &mut Lease) {
        lease.only_touched = false;
    }

    fn reschedule(&self, key: &Arc<str>, lease: &mut Lease) {
        let ends = lease.ends();
        self.schedule.shift(key, NEVER, ends);
        lease.scheduled = ends;
    }

    fn ended(&self, key: &Arc<str>, lease: &Lease) {
        self.schedule.shift(key, lease.scheduled, NEVER);
    }

    fn used(&self, lease: &Lease) -> bool {
        let Some(idle) = self.chosen.time_to_idle else {
            return false;
        };
        if lease.idle_until.load(Relaxed) == NEVER {
            return false;
        }
        let until = Kind::Idle.after(self.now(), idle);
        let later = |idle_until| (idle_until != ENDED && idle_until < until).then_some(until);
        if lease.idle_until.fetch_update(Relaxed, Relaxed, later) == Err(ENDED) {
            return false;
        }
        // Of several readers, the one that moves `last_stored` stores the deadline.
        let ends = lease.ends();
        let last_stored = lease.last_stored.load(Relaxed);
        ends.saturating_sub(last_stored) > length(idle) / 10
            && lease
                .last_stored
                .compare_exchange(last_stored, ends, Relaxed, Relaxed)
                .is_ok()
    }

    fn touch(&self, lease: &mut Lease) {
        lease.only_touched = true;
    }

    fn only_touched(&self, lease: &Lease) -> bool {
        lease.only_touched
    }

    fn lost(&self, lease: &mut Lease) {
        lease.only_touched = false;
    }

    fn stored(&self, lease: &mut Lease) {
        lease.only_touched = false;
    }

    /// The first reader that finds the entry past its idle deadline ends it for
    /// good: a reader that found it alive before, and only then moves its deadline,
    /// would revive it.
    fn is_live(&self, lease: &Lease) -> bool {
        let mut idle_until = lease.idle_until.load(Relaxed);
        loop {
            let ends = lease.live_until.min(idle_until);
            if ends == NEVER || self.now() < ends {
                return true;
            }
            if idle_until > lease.live_until || idle_until == ENDED {
                return false;
            }
            let end = lease
                .idle_until
                .compare_exchange(idle_until, ENDED, Relaxed, Relaxed);
            match end {
                Ok(_) => return false,
                Err(moved) => idle_until = moved,
            }
        }
    }

    /// Only one of the two deadlines is stored, and the other is counted from this
    /// write; an own time to live is not stored at all. The write may be long
    /// before the commit. Its time is computed back from the deadline, so that
    /// restarts neither extend nor shorten an own time to live.
    fn written_at(&self, lease: &Lease) -> Option<SystemTime> {
        let has_both = lease.idle_until.load(Relaxed) != NEVER && lease.live_until != NEVER;
        let lives = lease
            .own
            .or(self.chosen.time_to_live.filter(|_| has_both))?;
        time(lease.live_until)?.checked_sub(lives)
    }

    fn expires_at(&self, lease: &Lease) -> Option<SystemTime> {
        let ends = lease.ends();
        time(ends).filter(|_| ends < FAR)
    }

    fn stored_expiry(&self, lease: &Lease) -> Option<SystemTime> {
        time(if lease.stores_reads() {
            lease.ends()
        } else {
            lease.live_until
        })
    }

    fn expired(&self, key: &str, value: V) {
        let tell = || match &self.chosen.listener {
            Some(listener) => listener(key, value),
            None => drop(value),
        };
        // A panic in the listener, or in the value's `Drop`, must not end the
        // sweeper.
        if catch_unwind(AssertUnwindSafe(tell)).is_err() {
            tracing::trace!(target: MAP, key, "this entry has expired, and its listener or its value panicked");
            tracing::error!(target: MAP, "an expiry listener, or the drop of an expired value, panicked");
        }
    }

    fn cleared(&self) -> Box<dyn Any + Send> {
        Box::new(self.schedule.take_all())
    }

    fn opened(&self, expire: Expire) {
        tokio::spawn(sweep(self.schedule.clone(), self.clock.clone(), expire));
    }
}

impl<V> Drop for Expiring<V> {
    fn drop(&mut self) {
        self.schedule.end();
    }
}

impl<V> fmt::Debug for Expiry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiry")
            .field("time_to_live", &self.time_to_live)
            .field("time_to_idle", &self.time_to_idle)
            .finish_non_exhaustive()
    }
}

impl<V> fmt::Debug for Expiring<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chosen.fmt(f)
    }
}

#[cfg(test)]
mod tests;
