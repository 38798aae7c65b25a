//! A layer that spreads the keys of each map over several providers.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::Arc,
    time::SystemTime,
};

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::{
    batch::{Batch, BatchId, Committed, MapBatch, WriterId},
    error::{Error, ErrorKind, Result},
    heartbeat::Heartbeat,
    incarnation::Incarnation,
    load::{Load, Wanted},
    name::MapName,
    provider::{Capabilities, Provider},
    record::Revision,
};

mod commit;
mod incarnations;
mod layout;
mod load;
mod reshard;
mod routing;
mod writers;

use commit::check_not_reserved;
use incarnations::Incarnations;
use routing::Shard;
use writers::Writers;

/// Spreads the keys of each map over several providers, the shards.
///
/// Use it if one database does not take the number of entries or writes.
///
/// ```
/// use persistify::{Memory, PersistentMap, Provider, Sharded};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// let (north, south) = (Memory::new(), Memory::new());
/// let store = Sharded::new([("north", north.clone()), ("south", south.clone())])?;
/// let users = PersistentMap::builder(store.clone(), "users").open().await?;
/// for n in 0..100 {
///     users.insert(format!("user/{n}"), n);
/// }
/// users.flush().await?;
/// users.close().await?;
///
/// // A third shard gets its third of the entries.
/// let larger = Sharded::new([("north", north), ("south", south), ("west", Memory::new())])?;
/// let moved = store.reshard(&larger).await?;
/// assert!((20..50).contains(&moved));
/// let users: PersistentMap<u32> = PersistentMap::builder(larger, "users").open().await?;
/// assert_eq!(users.len(), 100);
/// # Ok(())
/// # }
/// ```
///
/// # The shards
///
/// A shard has a name, which stays with its store. The order of the list does not matter.
/// A shard is any provider that commits to several maps and checks conditions: SQLite,
/// Postgres, or a layer around one.
///
/// A key is kept by the shard with the highest weight (rendezvous hashing). The weight is
/// XXH3-64 of the key, seeded with the unseeded XXH3-64 of the shard's name; of two equal
/// weights, the one of the greater name wins. A key is on the same shard in all maps. If a
/// shard is added, only the keys of the new shard move; if one is removed, only its keys do.
/// The weights are public: an attacker who chooses keys can put all of them on one shard.
///
/// The first use stores the list in the map `sharded` of each shard; this name is reserved.
/// Later uses compare it, and a store that was swapped, replaced or left out is an error. Call
/// [`reshard`](Self::reshard) to change the list.
///
/// # What a batch is
///
/// A commit is atomic within a shard. Conditional saves of one key, and atomic batches whose
/// keys are on one shard, work as on one store. A commit whose keys must be written together
/// and are on several shards, and a transaction of several maps, are `Unsupported`; nothing is
/// written.
///
/// Write-behind saves are not atomic commits, so the layer splits them and writes to all
/// shards concurrently. After a crash, one shard may have its part of the last batch and
/// another may not. A waiting save returns once all parts are stored.
///
/// # When a shard is down
///
/// A map has one commit in flight, and repeats it until all its shards have it. So one shard
/// that is down delays the write-behind saves of all keys; writes go on in memory.
/// Opening and reloading need all shards. A load of single keys needs their shards and the
/// first one.
///
/// A shard that has lost commits stops the map as [`Rewound`](ErrorKind::Rewound), like a
/// single store.
///
/// # When not to use it
///
/// - If one server is fast enough, perhaps with partitions: it is simpler to run.
/// - If several entries must change together: keep them on one store.
/// - For loads of [changes](Wanted::Changed): they are `Unsupported` with more than one shard.
///
/// # Cost
///
/// Each commit checks the list of shards with a condition on the map `sharded`. In Postgres,
/// this takes a second round trip, and commits of different maps to one server wait for each
/// other. Each load and each ping reads one more record of each shard. Several conditional saves
/// at a time share a commit only if their keys are on one shard.
///
/// # Order
///
/// Layers around it see whole batches: `Namespaced` may be on either side. A layer that
/// stores batches must store the mark [`divisible`](Batch::divisible). Put a layer that
/// concerns one store, such as a circuit breaker, around each shard.
///
/// # Errors
///
/// - `Invalid`, from the first use: another list than the stored one (the message names the
///   difference), swapped stores, or new shards that have entries already.
/// - `Unusable`, from the first use: a reshard is not finished, or a shard was replaced by an
///   empty store.
/// - `Unsupported`: a shard lacks an ability, an atomic commit spans shards, or a commit spans
///   maps.
/// - `Superseded`: a reshard has ended this list. Nothing is written, and loads fail.
/// - `Unavailable`, from the first use: another process sets up the same shards; try again.
///
/// The message of an error names the shard.
#[derive(Clone)]
pub struct Sharded(Arc<Shards>);

struct Shards {
    /// Sorted by name.
    list: Vec<Shard>,
    /// The map of the layout.
    layout: MapName,
    /// The maps whose last revisions are known.
    known: Mutex<HashSet<MapName>>,
    /// Set once the layout was checked.
    generation: OnceCell<u64>,
    incarnations: Mutex<Incarnations>,
    writers: Mutex<Writers>,
    heartbeat: Heartbeat,
}

impl Sharded {
    /// Creates the layer over these stores, each with the name of its shard. The stores are
    /// first used by the first call of the layer.
    ///
    /// Wrap providers of different types in `Arc<dyn Provider>`.
    ///
    /// # Errors
    ///
    /// `Invalid` if there is no shard, if two have the same name, or if a name is empty, is longer
    /// than 255 bytes, or contains a control character or a `/`.
    pub fn new<N: AsRef<str>, P: Provider>(
        shards: impl IntoIterator<Item = (N, P)>,
    ) -> Result<Self> {
        let shard = |(name, store): (N, P)| Shard::new(name.as_ref(), Arc::new(store));
        let mut list = { shards.into_iter().map(shard) }.collect::<Result<Vec<_>>>()?;
        list.sort_by(|a, b| a.name.cmp(&b.name));
        if list.is_empty() {
            let message = "the list of shards is empty; name at least one";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if let Some(twice) = list.windows(2).find(|two| two[0].name == two[1].name) {
            let message = "two shards have the same name; name each after its store";
            return Err(twice[0].blame(Error::new(ErrorKind::Invalid, message)));
        }
        Ok(Self(Arc::new(Shards {
            layout: MapName::of_layout(),
            known: Mutex::default(),
            generation: OnceCell::new(),
            incarnations: Mutex::new(Incarnations::new(list.iter().map(|s| s.name.clone()))),
            writers: Mutex::default(),
            heartbeat: Heartbeat::new(),
            list,
        })))
    }

    /// The names of the shards, sorted.
    pub fn shards(&self) -> impl Iterator<Item = &str> {
        self.0.list.iter().map(|shard| &*shard.name)
    }

    /// The name of the shard that keeps this key in every map.
    pub fn shard_of(&self, key: impl AsRef<str>) -> &str {
        &self.0.list[routing::owner(&self.0.list, key.as_ref())].name
    }
}

impl Shards {
    /// Calls all shards, and returns the first error.
    async fn all<'a, F: Future<Output = Result<()>>>(
        &'a self,
        call: impl Fn(&'a dyn Provider) -> F,
    ) -> Result<()> {
        let calls = self.list.iter().map(|shard| async {
            let called = call(&*shard.provider).await;
            called.map_err(|error| shard.blame(error))
        });
        join_all(calls).await.into_iter().collect()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Sharded {
    fn capabilities(&self) -> Capabilities {
        let of_shards = self
            .0
            .list
            .iter()
            .map(|shard| shard.provider.capabilities());
        let common = of_shards.reduce(|a, b| Capabilities {
            durable: a.durable && b.durable,
            bytes: a.bytes && b.bytes,
            deletions: false,
            compressed: a.compressed && b.compressed,
            encrypted: a.encrypted && b.encrypted,
            ..a
        });
        Capabilities {
            several_maps: false,
            conditions: true,
            sharded: self.0.list.len() > 1,
            ..common.unwrap_or_default()
        }
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        match &*self.0.list {
            [one] => one.provider.heartbeat(),
            // An answer of one shard says nothing about the others.
            _ => Some(self.0.heartbeat.clone()),
        }
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        check_not_reserved(map)?;
        self.0.load(map, wanted).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.0.commit(batch).await
    }

    async fn release(&self, map: &MapName) -> Result<()> {
        self.0.all(|shard| shard.release(map)).await
    }

    /// The maps of all shards.
    async fn maps(&self) -> Result<Vec<MapName>> {
        self.0.generation().await?;
        let maps = self.0.list.iter().map(|shard| async {
            let maps = shard.provider.maps().await;
            maps.map_err(|error| shard.blame(error))
        });
        let maps: BTreeSet<_> = try_join_all(maps).await?.concat().into_iter().collect();
        let own = maps
            .into_iter()
            .filter(|map| check_not_reserved(map).is_ok());
        Ok(own.collect())
    }

    /// Drops the map on all shards. Not atomic: after an error, drop it again.
    async fn drop_map(&self, map: &MapName) -> Result<()> {
        check_not_reserved(map)?;
        // A writer names one revision that it has seen, of all shards. An empty commit above
        // the revisions of all shards puts each shard's drop above those too.
        self.0.learn(map).await?;
        let nothing = MapBatch::new(map.clone(), Vec::new());
        let id = BatchId::new(WriterId::random(), 1);
        let raise = Batch::new(id, Revision::ZERO, SystemTime::now(), [nothing]);
        self.0.commit(&raise).await?;
        let dropped = self.0.all(|shard| shard.drop_map(map)).await;
        dropped.map_err(|error| error.outcome_unknown())
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        let generation = self.0.generation().await?;
        let pings = self.0.list.iter().map(|shard| async move {
            let found = shard
                .provider
                .ping()
                .await
                .map_err(|error| shard.blame(error))?;
            shard.check_not_ended(generation).await?;
            Ok::<_, Error>(found)
        });
        let found = try_join_all(pings).await?;
        let mut incarnations = self.0.incarnations.lock();
        for (n, found) in found.into_iter().enumerate() {
            incarnations.saw(n, found);
        }
        let latest = incarnations.latest().clone();
        Ok(incarnations.combined(&latest))
    }

    async fn close(&self) -> Result<()> {
        self.0.all(|shard| shard.close()).await
    }
}

impl fmt::Debug for Sharded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shards = self
            .0
            .list
            .iter()
            .map(|shard| (&shard.name, &shard.provider));
        f.debug_map().entries(shards).finish()
    }
}
