//! A layer that loads from a standby while the primary is down.

mod copying;
mod limit;
mod loading;
mod marking;
pub(crate) mod mirror;
mod watermark;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use self::{
    copying::Copying,
    limit::within,
    loading::nor_from_standby,
    marking::Marking,
    mirror::{Lag, Mirror},
    watermark::Copies,
};
use super::{Layer, chain::IntoLayer};
use crate::{
    batch::{Batch, Committed},
    error::{Error, ErrorKind, Result},
    load::{Load, Wanted},
    name::MapName,
    provider::{Capabilities, Provider, ledger},
    trace::LOAD,
};

/// Loads from a standby while the primary is down.
///
/// The wrapped provider is the primary. Maps commit to the primary only. While it is
/// `Unavailable`, maps are opened and reloaded from the standby, and their health is
/// [`Degraded`](crate::Health::Degraded), with the age of the copy. Their changes stay pending.
/// Once the primary is back, each map commits its pending changes and reloads itself. So the
/// primary is the only leader at any time, and the standby never takes over.
///
/// ```
/// use persistify::testing::Faulty;
/// use persistify::{ErrorKind, Failover, Health, Memory, PersistentMap, ProviderExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// let primary = Faulty::new(Memory::new());
/// let store = primary.clone().layer(Failover::to(Memory::new()));
/// let stock: PersistentMap<u32> = PersistentMap::builder(store.clone(), "stock").open().await?;
/// stock.insert_and_save("apple", 3).await?;
/// stock.close().await?;
///
/// primary.down(ErrorKind::Unavailable);
/// let stock: PersistentMap<u32> = PersistentMap::builder(store.clone(), "stock").open().await?;
/// assert_eq!(stock.get("apple"), Some(3));
/// assert!(matches!(*stock.health().borrow(), Health::Degraded { .. }));
///
/// primary.up();
/// stock.insert_and_save("apple", 4).await?; // committed to the primary
/// stock.flush().await?; // and the map has reloaded itself
/// assert!(stock.health().borrow().is_healthy());
/// # stock.close().await
/// # }
/// ```
///
/// # How the standby is kept up to date
///
/// **By this layer**, unless it is [replicated](Self::replicated): about 50 milliseconds after a
/// commit, a background task copies the [changes](Wanted::Changed) of the map since its last copy:
/// puts, touches, removals, clears and drops. It also does so at each [interval](Self::interval),
/// for commits of other processes, and when a map is closed. The layer follows a map from its
/// first load from the primary, commit or drop until it is closed. The first copy of a map compares
/// all records with those on the standby. So does a copy after a gap for which the primary no
/// longer has tombstones, and every copy of a primary or an adopted table that does not support
/// loads of changes (at most one in half an interval).
///
/// The standby stores the progress of each map, in the map `failover/watermarks`. So a restart
/// continues where the last process ended, a standby that was away catches up, and several
/// processes may share one standby. (On a standby without
/// [`several_maps`](Capabilities::several_maps), such as JSON files, only one process may.) A map
/// is loaded from the standby only if it was copied completely before. A standby that is down, or
/// slow, never delays or fails a commit; see [`lag`](Self::lag). Closing a map, or the provider,
/// waits for a last copy for up to one [timeout](Self::timeout); if that fails, the close succeeds
/// and the failure is logged.
///
/// **By the database**, if it is [replicated](Self::replicated): the standby is a read-only
/// replica, such as a streaming replica of Postgres, and this layer never writes to it. The age
/// of a copy is then the time since the last commit of the map on the replica.
///
/// This layer does not promote a standby. The database can: of several hosts in a Postgres URL
/// (`postgres://a,b/app`), the first that accepts writes is used, so maps continue on a promoted
/// replica. Use both together: one URL with all hosts as the primary, and a standby for the time
/// in which none of them accepts writes.
///
/// # What a copy may lack
///
/// A copy may lack the last commits before the outage, and it may have a part of a commit of
/// several keys if both stores failed at the same time. [`Load::copied_at`] marks a load from a
/// copy. Maps handle such loads as follows:
///
/// - An open map reloads from a copy only if that has all commits that the map has seen.
///   Otherwise `reload` fails as `Unavailable`, and the entries stay.
/// - Entries of a copy that this layer made have no revision. If a map
///   [detects conflicts](crate::Builder::conflicts), a change of such an entry counts as a conflict
///   until the map has reloaded itself, and is resolved by its policy. Entries of a replica keep
///   their revisions.
/// - A map that was dropped on the primary after the copy was made stops as
///   [`Rewound`](ErrorKind::Rewound) when the primary is back.
/// - Only the primary or a replica answers a load of [changes](Wanted::Changed).
///
/// # Order
///
/// The standby stores the values as this layer sees them. With
/// [encryption](Capabilities::encrypted) above this layer, the standby is encrypted as well, with
/// the same keys. With encryption around only one of the two, loads fail as `Invalid`, because the
/// other would hold plain text. The same holds for compression if the standby is
/// [replicated](Self::replicated). Put a circuit breaker below this layer, around the primary: then
/// loads wait the [timeout](Self::timeout) for a primary that hangs only until the breaker opens.
///
/// # When not to use it
///
/// If the maps of a program are open before an outage begins and it does not restart, they keep
/// working without a standby: reads are served from memory, and changes stay pending. If reads must
/// never be older than the last commit, wait for the primary:
/// [`open_timeout`](crate::Builder::open_timeout).
///
/// # Cost
///
/// A commit takes two short locks when it ends, and wakes the background task. Copying reads each
/// change from the primary once, and commits it to the standby. The first load of changes makes
/// databases create an index, which slows down commits of new rows. A comparison reads both
/// stores. It holds a page of the primary in memory, and all records of the standby in that range
/// of keys: usually a page, more if many records were removed from the primary meanwhile.
///
/// # Errors
///
/// If the primary is `Unavailable` and the standby fails too, or has no complete copy, a load fails
/// with the error of the primary, which mentions the other. A commit of values stored as bytes is
/// `Unsupported` if the standby takes JSON only. All other errors of commits are those of the
/// primary. An option out of its bounds, or a wrong order, is `Invalid` at the first load, which
/// is the opening of a map. A load that fails after its first page fails with the error of the
/// primary; the next one may be answered by the standby.
///
/// Clones share the standby and the background task, which ends when the last clone is dropped or
/// one is [closed](Provider::close). All calls are as cancel-safe as those of the primary.
pub struct Failover<P = ()> {
    primary: Arc<P>,
    standby: Arc<dyn Provider>,
    options: Options,
    /// `None` if the database replicates by itself, and before there is a primary.
    mirror: Option<Arc<Mirror>>,
}

#[derive(Clone, Copy, Debug)]
struct Options {
    replicated: bool,
    timeout: Duration,
    interval: Duration,
}

impl Failover {
    /// Creates the layer with this standby. [`ProviderExt::layer`](crate::ProviderExt::layer)
    /// gives it the primary.
    pub fn to(standby: impl Provider) -> Self {
        Self {
            primary: Arc::new(()),
            standby: Arc::new(standby),
            options: Options {
                replicated: false,
                timeout: Duration::from_secs(10),
                interval: Duration::from_secs(30),
            },
            mirror: None,
        }
    }

    /// Declares that the database replicates the primary to the standby by itself. The layer then
    /// never writes to the standby. Off by default.
    #[must_use]
    pub fn replicated(mut self) -> Self {
        self.options.replicated = true;
        self
    }

    /// Sets how long a load waits for the first records of the primary before it turns to the
    /// standby: at least 1 millisecond, 10 seconds by default. It should be shorter than the
    /// [`commit_timeout`](crate::Builder::commit_timeout) of the maps. Copying uses the same limit
    /// for each call of the primary and of the standby. Loads from the standby have no limit.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.options.timeout = limit;
        self
    }

    /// Sets how often the standby is brought up to date with commits that were not made through
    /// this layer, such as those of other processes: at least 1 millisecond, 30 seconds by
    /// default. It is also the longest pause after a failure.
    #[must_use]
    pub fn interval(mut self, time: Duration) -> Self {
        self.options.interval = time;
        self
    }
}

impl<P: Provider> IntoLayer<P> for Failover {
    type Layer = Failover<P>;

    fn into_layer(self, primary: P) -> Failover<P> {
        let (primary, standby, options) = (Arc::new(primary), self.standby, self.options);
        let mirror = || {
            let copies = Copies::new(standby.clone(), options.timeout);
            let copying = Copying::new(primary.clone(), copies);
            let limits = (options.timeout, options.interval);
            Arc::new(Mirror::new(copying, standby.clone(), limits))
        };
        Failover {
            mirror: (!options.replicated).then(mirror),
            primary,
            standby,
            options,
        }
    }
}

impl<P: Provider> Failover<P> {
    /// The wrapped provider, to which maps commit.
    pub fn primary(&self) -> &P {
        &self.primary
    }

    /// The provider that has the copies.
    pub fn standby(&self) -> &dyn Provider {
        &*self.standby
    }

    /// Returns how far the standby lags behind. Empty if the standby is
    /// [replicated](Failover::replicated): ask the database for its lag.
    pub fn lag(&self) -> Lag {
        let mirror = self.mirror.as_ref();
        mirror.map(|mirror| mirror.lag()).unwrap_or_default()
    }

    /// Copies all commits that the standby lacks, of all maps that are followed, and waits until
    /// they are copied. Does nothing if the standby is [replicated](Failover::replicated).
    ///
    /// Cancel-safe: the background task continues if the future is dropped.
    ///
    /// # Errors
    ///
    /// Those of the primary and of the standby. Some of the commits may be copied then, and the
    /// background task tries again.
    pub async fn catch_up(&self) -> Result<()> {
        match &self.mirror {
            Some(mirror) => mirror.catch_up().await,
            None => Ok(()),
        }
    }

    /// Checks the options, and the order of the layers.
    fn check(&self) -> Result<()> {
        let Options {
            replicated,
            timeout,
            interval,
        } = self.options;
        let (own, copy) = (self.inner().capabilities(), self.standby().capabilities());
        let least = Duration::from_millis(1);
        let problem = if timeout < least {
            "failover: timeout must be at least 1 ms"
        } else if interval < least {
            "failover: interval must be at least 1 ms"
        } else if own.encrypted != copy.encrypted {
            "failover: only one of primary and standby is encrypted; put the encryption above this \
             layer, where it serves both, or around each of the two"
        } else if replicated && own.compressed != copy.compressed {
            "failover: only one of primary and standby is compressed; put the compression above \
             this layer, where it serves both, or around each of the two"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Invalid, problem))
    }
}

#[async_trait]
impl<P: Provider> Layer for Failover<P> {
    fn inner(&self) -> &dyn Provider {
        &*self.primary
    }

    fn capabilities(&self) -> Capabilities {
        let mut own = self.inner().capabilities();
        // The standby must be able to hold every value.
        own.bytes &= self.standby().capabilities().bytes;
        own
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.check()?;
        let is_whole = matches!(wanted, Wanted::All);
        let down = match self.load_from_primary(map, wanted.clone()).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => error,
            answer => {
                if let Some(mirror) = self.mirror.as_ref().filter(|_| answer.is_ok()) {
                    if is_whole || !mirror.follows(map) {
                        mirror.mark([map.clone()]);
                    }
                }
                return answer;
            }
        };
        match self.load_from_standby(map, wanted).await {
            Ok(load) => {
                tracing::warn!(target: LOAD, %map, copied_at = ?load.copied_at, error = %down.logged(), "the primary is down; the map is loaded from its standby");
                Ok(load)
            }
            Err(error) => Err(nor_from_standby(&down, &error)),
        }
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        if !Layer::capabilities(self).bytes {
            batch.maps.iter().try_for_each(ledger::check_json)?;
        }
        let _marking = self.mirror.as_ref().map(|mirror| Marking { mirror, batch });
        self.inner().commit(batch).await
    }

    async fn release(&self, map: &MapName) -> Result<()> {
        if let Some(mirror) = &self.mirror {
            mirror.release(map).await;
        }
        self.inner().release(map).await
    }

    /// The maps of the primary; while it is down, the maps of which the standby has a complete
    /// copy.
    async fn maps(&self) -> Result<Vec<MapName>> {
        let down = match within(self.options.timeout, self.inner().maps()).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => error,
            listed => return listed,
        };
        let listed = async {
            let mut listed = self.standby().maps().await?;
            if self.mirror.is_some() {
                let complete = watermark::complete(&*self.standby).await?;
                listed.retain(|map| complete.iter().any(|name| name == map.as_str()));
            }
            Ok(listed)
        };
        listed
            .await
            .map_err(|error: Error| nor_from_standby(&down, &error))
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        let dropped = self.inner().drop_map(map).await;
        if let Some(mirror) = &self.mirror {
            mirror.mark([map.clone()]);
        }
        dropped
    }

    /// Closes both providers.
    async fn close(&self) -> Result<()> {
        if let Some(mirror) = &self.mirror {
            mirror.close().await;
        }
        let closed = self.inner().close().await;
        closed.and(within(self.options.timeout, self.standby().close()).await)
    }
}

impl<P> Clone for Failover<P> {
    fn clone(&self) -> Self {
        Self {
            primary: self.primary.clone(),
            standby: self.standby.clone(),
            options: self.options,
            mirror: self.mirror.clone(),
        }
    }
}

impl<P: fmt::Debug> fmt::Debug for Failover<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover")
            .field("primary", &self.primary)
            .field("standby", &self.standby)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
