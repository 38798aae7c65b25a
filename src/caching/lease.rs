//! How long an entry of a caching map lives.

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
    deadlines::{Millis, NEVER, even, millis, odd, time},
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

/// Called with the key and the value of each entry that has expired.
pub(super) type Listener<V> = Arc<dyn Fn(&str, V) + Send + Sync>;

/// The times chosen for a caching map.
pub struct Expiry<V> {
    pub(super) time_to_live: Option<Duration>,
    pub(super) time_to_idle: Option<Duration>,
    pub(super) listener: Option<Listener<V>>,
}

/// The [`Lifetime`](crate::Lifetime) of a [`CachingMap`]: entries expire.
pub struct Expiring<V> {
    chosen: Expiry<V>,
    clock: Arc<MapClock>,
    schedule: Arc<Schedule>,
}

/// The deadlines of one entry.
///
/// Reads move `idle_until` and `told`, under the shard's read lock; everything
/// else changes under its write lock.
pub struct Lease {
    /// Counted from the last write.
    live_until: Millis,
    /// Counted from the last write or read.
    idle_until: AtomicU64,
    /// The deadline that the store was last told, or is about to be.
    told: AtomicU64,
    /// The deadline under which the entry stands in the schedule: its real one
    /// or an earlier one.
    scheduled: Millis,
    /// The entry's own time to live, which replaces the map's times.
    own: Option<Duration>,
    only_touched: bool,
}

/// The idle deadline of an entry that was found to have passed it.
const ENDED: Millis = 0;

impl Lease {
    fn ends(&self) -> Millis {
        self.live_until.min(self.idle_until.load(Relaxed))
    }
}

impl<V> Expiring<V> {
    fn now(&self) -> Millis {
        millis(self.clock.now())
    }

    /// Both deadlines of an entry that is written at that time.
    ///
    /// With a time to idle, a deadline that reads move is even, and one that
    /// they do not move is odd. The store keeps one number an entry, and after a
    /// restart reads must not prolong what they did not prolong before. It makes
    /// entries end up to two milliseconds early, never late.
    fn deadlines(&self, own: Option<Duration>, at: Millis) -> (Millis, Millis) {
        let after = |wait: Option<Duration>| {
            wait.map_or(NEVER, |wait| {
                at.saturating_add(Millis::try_from(wait.as_millis()).unwrap_or(NEVER))
            })
        };
        match (own, self.chosen.time_to_idle) {
            (Some(own), None) => (after(Some(own)), NEVER),
            (None, None) => (after(self.chosen.time_to_live), NEVER),
            (Some(own), Some(_)) => (odd(after(Some(own))), NEVER),
            (None, idle) => (odd(after(self.chosen.time_to_live)), even(after(idle))),
        }
    }

    fn lease(&self, key: &Arc<str>, own: Option<Duration>, was: Millis, at: Millis) -> Lease {
        let (live_until, idle_until) = self.deadlines(own, at);
        let mut lease = Lease {
            live_until,
            idle_until: idle_until.into(),
            told: live_until.min(idle_until).into(),
            scheduled: was,
            own,
            only_touched: false,
        };
        self.schedule_earlier(key, &mut lease);
        lease
    }

    /// The own time of an entry from the store that ends although no time of
    /// the map says so. Counted from the commit, so a little less than it was.
    fn own_of(&self, record: &Record) -> Option<Duration> {
        let (ends, written) = record.expires_at.zip(record.updated_at)?;
        let is_own = self.chosen.time_to_live.is_none();
        is_own.then(|| ends.duration_since(written).ok())?
    }

    /// An entry that ends later than it is scheduled stays where it is: the
    /// sweeper will find out, once. One that is written all the time costs
    /// nothing here.
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
            "time_to_live must be at least 1 ms; leave it out for entries that live until they are removed"
        } else if too_short(self.time_to_idle) {
            "time_to_idle must be at least 1 ms; leave it out for entries that may be idle for ever"
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

    fn begin(&self, key: &Arc<str>, ttl: Option<Duration>, old: Option<&Lease>) -> Lease {
        self.lease(key, ttl, old.map_or(NEVER, |old| old.scheduled), self.now())
    }

    fn begin_at(
        &self,
        key: &Arc<str>,
        ttl: Option<Duration>,
        old: Option<&Lease>,
        at: SystemTime,
    ) -> Lease {
        let was = old.map_or(NEVER, |old| old.scheduled);
        self.lease(key, ttl, was, millis(at))
    }

    fn ends_at(&self, ttl: Option<Duration>, at: SystemTime) -> Option<SystemTime> {
        let (live_until, idle_until) = self.deadlines(ttl, millis(at));
        time(live_until.min(idle_until))
    }

    fn own(&self, lease: &Lease) -> Option<Duration> {
        lease.own
    }

    fn adopt(&self, record: &Record) -> Lease {
        let stored = record.expires_at.map_or(NEVER, millis);
        let is_idle = self.chosen.time_to_idle.is_some() && stored != NEVER && stored % 2 == 0;
        let written = record.updated_at.zip(self.chosen.time_to_live);
        let limit = written.and_then(|(at, ttl)| at.checked_add(ttl));
        let (live_until, idle_until) = if is_idle {
            (limit.map_or(NEVER, |limit| odd(millis(limit))), stored)
        } else {
            (stored, NEVER)
        };
        let mut lease = Lease {
            live_until,
            idle_until: idle_until.into(),
            told: stored.into(),
            scheduled: NEVER,
            own: self.own_of(record).filter(|_| !is_idle),
            only_touched: false,
        };
        self.schedule_earlier(&record.key, &mut lease);
        lease
    }

    /// The store keeps no time of the last read, from which it would be seen that
    /// the wall clock was set back since.
    fn loaded(&self, key: &Arc<str>, lease: &mut Lease) {
        let Some(idle) = self.chosen.time_to_idle else {
            return;
        };
        let idle = Millis::try_from(idle.as_millis()).unwrap_or(NEVER);
        let latest = self.now().saturating_add(idle);
        let idle_until = lease.idle_until.get_mut();
        if *idle_until != NEVER && *idle_until > latest {
            *idle_until = even(latest);
            *lease.told.get_mut() = even(latest);
            self.schedule_earlier(key, lease);
        }
    }

    fn renew(&self, key: &Arc<str>, lease: &mut Lease) {
        *lease = self.lease(key, lease.own, lease.scheduled, self.now());
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
        let idle = Millis::try_from(idle.as_millis()).unwrap_or(NEVER);
        let until = even(self.now().saturating_add(idle));
        let later = |idle_until| (idle_until != ENDED && idle_until < until).then_some(until);
        if lease.idle_until.fetch_update(Relaxed, Relaxed, later) == Err(ENDED) {
            return false;
        }
        // Of several readers one tells the store: the one that moves `told`.
        let ends = lease.ends();
        let told = lease.told.load(Relaxed);
        ends.saturating_sub(told) > idle / 10
            && lease
                .told
                .compare_exchange(told, ends, Relaxed, Relaxed)
                .is_ok()
    }

    fn touch(&self, lease: &mut Lease) {
        lease.only_touched = true;
    }

    fn only_touched(&self, lease: &Lease) -> bool {
        lease.only_touched
    }

    fn stored(&self, lease: &mut Lease) {
        lease.only_touched = false;
    }

    /// Whoever finds the entry idle for too long ends it for good: a reader who
    /// found it alive before, and only then moves its deadline, would revive it.
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

    /// Only one deadline is stored, and reads may move it. The other one is
    /// counted from the last write anew, and that may be long before the commit.
    fn written_at(&self, lease: &Lease) -> Option<SystemTime> {
        let has_both = lease.idle_until.load(Relaxed) != NEVER && lease.live_until != NEVER;
        let ttl = self.chosen.time_to_live.filter(|_| has_both)?;
        time(lease.live_until)?.checked_sub(ttl)
    }

    fn expires_at(&self, lease: &Lease) -> Option<SystemTime> {
        time(lease.ends())
    }

    fn expired(&self, key: &str, value: V) {
        let tell = || match &self.chosen.listener {
            Some(listener) => listener(key, value),
            None => drop(value),
        };
        // A panic of the listener, or of the value's `Drop`, is their own: it
        // must not end the sweeper.
        if catch_unwind(AssertUnwindSafe(tell)).is_err() {
            tracing::trace!(target: MAP, key, "this entry has expired, and its listener or its value panicked");
            tracing::error!(target: MAP, "an expiry listener panicked, or the value did");
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
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    /// The schedule grows with the entries, and not with the writes to them.
    #[test]
    fn a_million_writes_of_one_key_leave_one_deadline() {
        let plan = Expiry {
            time_to_live: Some(Duration::from_mins(1)),
            time_to_idle: None,
            listener: None,
        };
        let clock = Arc::new(MapClock::new(Arc::new(SystemClock::new())));
        let lifetime: Expiring<u64> = Plan::<u64>::begin(plan, clock);
        let key: Arc<str> = "key".into();
        let mut lease = lifetime.lease(&key, None, NEVER, lifetime.now());
        for n in 0..1_000_000 {
            // A shorter time moves the deadline, a longer one leaves it.
            let own = Duration::from_secs(n % 50 + 1);
            lease = Leases::<u64>::begin(&lifetime, &key, Some(own), Some(&lease));
        }
        assert_eq!(lifetime.schedule.len(), 1);
        Leases::<u64>::ended(&lifetime, &key, &lease);
        assert_eq!(lifetime.schedule.len(), 0);
    }

    /// A read that had found the entry alive moved its deadline after another one
    /// had found it expired: it came back.
    #[tokio::test(start_paused = true)]
    async fn a_late_reader_does_not_revive_what_another_has_found_expired() {
        let plan = Expiry {
            time_to_live: None,
            time_to_idle: Some(Duration::from_secs(1)),
            listener: None,
        };
        let clock = Arc::new(MapClock::new(Arc::new(SystemClock::new())));
        let lifetime: Expiring<u64> = Plan::<u64>::begin(plan, clock);
        let lease = lifetime.lease(&"key".into(), None, NEVER, lifetime.now());
        assert!(Leases::<u64>::is_live(&lifetime, &lease));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!Leases::<u64>::is_live(&lifetime, &lease));
        assert!(!Leases::<u64>::used(&lifetime, &lease));
        assert!(!Leases::<u64>::is_live(&lifetime, &lease));
    }
}
