//! How long an entry lives: for ever, in a map without expiry.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::Map;
use crate::{clock::MapClock, error::Result, record::Record};

/// How long the entries of a map live: the second parameter of [`Map`], and the
/// bound for code that works with either kind of map.
///
/// It is sealed: [`Forever`] and [`Expiring`](crate::Expiring) are all there are.
pub trait Lifetime<V>: Leases<V> {}

/// What a map asks about the time of its entries.
pub trait Leases<V>: fmt::Debug + Send + Sync + Sized + 'static {
    /// What is kept with each entry.
    type Lease: Send + Sync + 'static;

    /// Whether entries expire at all.
    const EXPIRES: bool;

    /// The lease of a fresh entry, in the place of one that was written over.
    fn begin(
        &self,
        key: &Arc<str>,
        ttl: Option<Duration>,
        old: Option<&Self::Lease>,
    ) -> Self::Lease;

    /// The same, of an entry that was written at that time.
    fn begin_at(
        &self,
        key: &Arc<str>,
        ttl: Option<Duration>,
        old: Option<&Self::Lease>,
        at: SystemTime,
    ) -> Self::Lease;

    /// When an entry that is written at that time expires.
    fn ends_at(&self, ttl: Option<Duration>, at: SystemTime) -> Option<SystemTime>;

    /// The entry's own time to live.
    fn own(&self, lease: &Self::Lease) -> Option<Duration>;

    /// The own time to live of an entry as the store has it.
    fn stored_own(&self, record: &Record) -> Option<Duration>;

    /// The lease of an entry that comes from the store.
    fn adopt(&self, record: &Record) -> Self::Lease;

    /// The map is loaded, and the time is known: whatever the entry's expiry was
    /// counted from, it was not later. An entry without an expiry gets that of the
    /// map; says whether it did, and the store has to be told.
    fn loaded(&self, key: &Arc<str>, lease: &mut Self::Lease) -> bool;

    /// The entry was changed, and its time begins anew.
    fn renew(&self, key: &Arc<str>, lease: &mut Self::Lease);

    /// The entry was changed, and keeps its expiry.
    fn keep(&self, lease: &mut Self::Lease);

    /// The entry was due, and has not expired.
    fn reschedule(&self, key: &Arc<str>, lease: &mut Self::Lease);

    /// The entry is no more, and no other took its place.
    fn ended(&self, key: &Arc<str>, lease: &Self::Lease);

    /// The entry was read; says whether the store should hear of it.
    fn used(&self, lease: &Self::Lease) -> bool;

    /// Only the expiry changes with the next commit; the value does not.
    fn touch(&self, lease: &mut Self::Lease);

    /// Whether [`touch`](Self::touch) is all that happened since the last commit.
    fn only_touched(&self, lease: &Self::Lease) -> bool;

    /// The store has lost the entry: all of it is to go there once more.
    fn lost(&self, lease: &mut Self::Lease);

    /// The store has the entry as it is.
    fn stored(&self, lease: &mut Self::Lease);

    /// Whether the entry has not expired yet.
    fn is_live(&self, lease: &Self::Lease) -> bool;

    /// The write that the entry's time is counted from, if the store has to keep
    /// it so that the entry's times are known after a restart.
    fn written_at(&self, lease: &Self::Lease) -> Option<SystemTime>;

    /// When the entry expires.
    fn expires_at(&self, lease: &Self::Lease) -> Option<SystemTime>;

    /// The expiry that the store is told of.
    fn stored_expiry(&self, lease: &Self::Lease) -> Option<SystemTime>;

    /// An entry has expired and was taken out of memory. No lock is held.
    fn expired(&self, key: &str, value: V);

    /// All entries are gone; what was kept of them is to be dropped once no lock
    /// is held.
    fn cleared(&self) -> Box<dyn Any + Send>;

    /// The map is open: time for a task of one's own.
    fn opened(&self, expire: Expire);
}

/// Takes the entry of a key out of the map, if it has expired; `None` once the
/// map is closed or gone.
pub(crate) type Expire = Box<dyn Fn(&str) -> Option<()> + Send>;

/// What a builder turns into a [`Lifetime`] when the map is opened.
pub trait Plan<V>: Send + Sync + 'static {
    /// What it turns into.
    type Life: Lifetime<V>;

    /// The handle that `open` returns.
    type Handle: From<Map<V, Self::Life>>;

    /// # Errors
    ///
    /// `Invalid`, naming the option and its bounds.
    fn check(&self) -> Result<()>;

    /// The lifetime by this clock.
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
