//! How long an entry lives. In a map without expiry: until it is removed.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::Map;
use crate::{clock::MapClock, error::Result, record::Record};

/// How long the entries of a map live: the second parameter of [`Map`], and the
/// bound for code that is generic over both kinds of map.
///
/// Sealed. [`Forever`] and [`Expiring`](crate::Expiring) implement it.
pub trait Lifetime<V>: Leases<V> {}

/// The expiry rules of the entries of a map.
pub trait Leases<V>: fmt::Debug + Send + Sync + Sized + 'static {
    /// The expiry state stored with each entry.
    type Lease: Send + Sync + 'static;

    /// Whether entries expire at all.
    const EXPIRES: bool;

    /// The lease of a newly written entry; `previous` is the lease that the write
    /// replaces.
    fn begin(
        &self,
        key: &Arc<str>,
        ttl: Option<Duration>,
        previous: Option<&Self::Lease>,
    ) -> Self::Lease;

    /// Like [`begin`](Self::begin), for an entry that was written at the time `at`.
    fn begin_at(
        &self,
        key: &Arc<str>,
        ttl: Option<Duration>,
        previous: Option<&Self::Lease>,
        at: SystemTime,
    ) -> Self::Lease;

    /// When an entry written at the time `at` expires.
    fn ends_at(&self, ttl: Option<Duration>, at: SystemTime) -> Option<SystemTime>;

    /// The entry's own time to live, if it has one.
    fn own(&self, lease: &Self::Lease) -> Option<Duration>;

    /// The own time to live of a stored entry.
    fn stored_own(&self, record: &Record) -> Option<Duration>;

    /// The lease of an entry loaded from the store.
    fn adopt(&self, record: &Record) -> Self::Lease;

    /// Corrects a loaded lease once the map is loaded and its clock is set: the
    /// time that its expiry is counted from must not be later than now. An entry
    /// without an expiry gets the map's; returns `true` in that case, and the store
    /// must then be updated.
    fn loaded(&self, key: &Arc<str>, lease: &mut Self::Lease) -> bool;

    /// Restarts the expiry of a changed entry.
    fn renew(&self, key: &Arc<str>, lease: &mut Self::Lease);

    /// Keeps the expiry of a changed entry.
    fn keep(&self, lease: &mut Self::Lease);

    /// Schedules again an entry that the sweeper found due but not expired.
    fn reschedule(&self, key: &Arc<str>, lease: &mut Self::Lease);

    /// Unschedules an entry that is removed, or whose lease an adopted one
    /// replaces.
    fn ended(&self, key: &Arc<str>, lease: &Self::Lease);

    /// Prolongs an entry that was read. Returns whether to store the new expiry.
    fn used(&self, lease: &Self::Lease) -> bool;

    /// Records that the next commit changes only the expiry, not the value.
    fn touch(&self, lease: &mut Self::Lease);

    /// Whether [`touch`](Self::touch) is the only change since the last commit.
    fn only_touched(&self, lease: &Self::Lease) -> bool;

    /// Records that the store has lost the entry: the next commit must write it
    /// whole.
    fn lost(&self, lease: &mut Self::Lease);

    /// Records that the store has the entry in its current state.
    fn stored(&self, lease: &mut Self::Lease);

    /// Whether the entry has not expired.
    fn is_live(&self, lease: &Self::Lease) -> bool;

    /// The write time that the entry's expiry is counted from, if it must be stored
    /// to compute the expiry after a restart.
    fn written_at(&self, lease: &Self::Lease) -> Option<SystemTime>;

    /// When the entry expires.
    fn expires_at(&self, lease: &Self::Lease) -> Option<SystemTime>;

    /// The expiry to store.
    fn stored_expiry(&self, lease: &Self::Lease) -> Option<SystemTime>;

    /// Takes the value of an expired entry that was removed from memory. Called
    /// without a lock.
    fn expired(&self, key: &str, value: V);

    /// Forgets all entries. Returns the bookkeeping for them, to be dropped outside
    /// the locks.
    fn cleared(&self) -> Box<dyn Any + Send>;

    /// Called when the map is open. May start a background task.
    fn opened(&self, expire: Expire);
}

/// Removes an entry from the map if it has expired. Returns `None` once the map
/// is closed or dropped.
pub(crate) type Expire = Box<dyn Fn(&str) -> Option<()> + Send>;

/// The settings of a [`Lifetime`], which is created when the map is opened.
pub trait Plan<V>: Send + Sync + 'static {
    /// The lifetime.
    type Life: Lifetime<V>;

    /// The handle that `open` returns.
    type Handle: From<Map<V, Self::Life>>;

    /// # Errors
    ///
    /// `Invalid`, naming the option and its bounds.
    fn check(&self) -> Result<()>;

    /// Creates the lifetime, with this clock.
    fn begin(self, clock: Arc<MapClock>) -> Self::Life;
}

/// The [`Lifetime`] of a [`PersistentMap`](crate::PersistentMap): entries live
/// until they are removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forever;

impl<V> Lifetime<V> for Forever {}

impl<V> Leases<V> for Forever {
    type Lease = ();
    const EXPIRES: bool = false;

    fn begin(&self, _: &Arc<str>, _: Option<Duration>, _: Option<&()>) {}

    fn begin_at(&self, _: &Arc<str>, _: Option<Duration>, _: Option<&()>, _: SystemTime) {}

    fn ends_at(&self, _: Option<Duration>, _: SystemTime) -> Option<SystemTime> {
        None
    }

    fn own(&self, (): &()) -> Option<Duration> {
        None
    }

    fn stored_own(&self, _: &Record) -> Option<Duration> {
        None
    }

    fn adopt(&self, _: &Record) {}

    fn loaded(&self, _: &Arc<str>, (): &mut ()) -> bool {
        false
    }

    fn renew(&self, _: &Arc<str>, (): &mut ()) {}

    fn keep(&self, (): &mut ()) {}

    fn reschedule(&self, _: &Arc<str>, (): &mut ()) {}

    fn ended(&self, _: &Arc<str>, (): &()) {}

    fn used(&self, (): &()) -> bool {
        false
    }

    fn touch(&self, (): &mut ()) {}

    fn only_touched(&self, (): &()) -> bool {
        false
    }

    fn lost(&self, (): &mut ()) {}

    fn stored(&self, (): &mut ()) {}

    fn is_live(&self, (): &()) -> bool {
        true
    }

    fn written_at(&self, (): &()) -> Option<SystemTime> {
        None
    }

    fn expires_at(&self, (): &()) -> Option<SystemTime> {
        None
    }

    fn stored_expiry(&self, (): &()) -> Option<SystemTime> {
        None
    }

    fn expired(&self, _: &str, _: V) {}

    fn cleared(&self) -> Box<dyn Any + Send> {
        Box::new(())
    }

    fn opened(&self, _: Expire) {}
}
