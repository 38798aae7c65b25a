//! A layer that keeps the maps of one tenant apart from all others.

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt};

use super::Layer;
use crate::{
    batch::{Batch, Committed, MapBatch},
    error::{Error, ErrorKind, Result},
    load::{Load, Wanted},
    name::{ASIDE, MapName},
    provider::Provider,
};

/// Gives each tenant maps of its own on a shared provider.
///
/// The map `users` of the namespace `acme` is stored as the map `acme/users`. The layer puts
/// `acme/` before every name, so no name of a map leads out of its namespace.
/// Namespaces nest: the name of the inner layer comes first.
///
/// ```
/// use persistify::{Memory, Namespaced, PersistentMap, Provider};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// let store = Memory::new();
/// let acme = Namespaced::new(store.clone(), "acme")?;
/// let users = PersistentMap::builder(acme.clone(), "users").open().await?;
/// users.insert_and_save("ada", 1).await?;
/// users.close().await?;
///
/// assert_eq!(acme.maps().await?[0].as_str(), "users");
/// assert_eq!(store.maps().await?[0].as_str(), "acme/users");
/// # Ok(())
/// # }
/// ```
///
/// To adopt a table or a file for a map of a namespace, use the full name:
/// `Sqlite::builder(path).table("acme/users", "users_of_acme")`.
///
/// # A tenant as a whole
///
/// [`maps`](Provider::maps) lists the maps of a tenant, [`count`](Self::count) counts their
/// records, and [`drop_all`](Self::drop_all) drops them. An export is a [copy](crate::copy) to
/// another provider, such as JSON files in a new folder. It keeps schema versions and expiries,
/// can be resumed, and is compared with the store at the end. A copy in the other direction,
/// perhaps to another namespace, imports it.
///
/// ```
/// use persistify::{Memory, PersistentMap, Provider, ProviderExt, copy};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// let acme = Memory::new().namespace("acme")?;
/// # let users = PersistentMap::builder(acme.clone(), "users").open().await?;
/// # users.insert_and_save("ada", 1).await?;
/// # users.close().await?;
/// let archive = Memory::new(); // or `JsonFile::open("./export/acme")`
/// let exported = copy(&acme, &archive, acme.maps().await?, |_, _| {}).await?;
/// assert_eq!(exported.records, acme.count().await?);
/// acme.drop_all().await?;
/// assert_eq!(acme.count().await?, 0);
/// # Ok(())
/// # }
/// ```
///
/// The name `unreadable` is reserved in a namespace: `acme/unreadable` stores copies of
/// unreadable records of the map `acme`.
///
/// # When not to use it
///
/// A namespace separates names, not resources: tenants share the files, the connections
/// and the limits of the provider, and its failures. [Closing](Provider::close) the
/// layer closes the provider for all of them. Code that has the provider itself can reach the
/// maps of every tenant.
///
/// # Cost
///
/// A commit copies the list of its changes, without keys and values; other calls format
/// a name.
#[derive(Clone, Debug)]
pub struct Namespaced<P> {
    inner: P,
    namespace: MapName,
}

impl<P: Provider> Namespaced<P> {
    /// Wraps a provider; all maps are in this namespace.
    ///
    /// # Errors
    ///
    /// `Invalid` if the namespace is not a valid [name](MapName::new), or is `unreadable`.
    pub fn new(inner: P, namespace: impl AsRef<str>) -> Result<Self> {
        let namespace = MapName::new(namespace)?;
        check_not_reserved(&namespace)?;
        Ok(Self { inner, namespace })
    }

    /// The name of the namespace.
    pub fn namespace(&self) -> &str {
        self.namespace.as_str()
    }

    /// Counts the stored records of all maps of the namespace, including expired ones that are
    /// not removed yet.
    ///
    /// It loads every record, a page at a time, and then [releases](Provider::release) the map,
    /// which may be open. Maps that are written meanwhile are counted at different times.
    ///
    /// # Errors
    ///
    /// Those of [`maps`](Provider::maps), [`load`](Provider::load) and
    /// [`release`](Provider::release).
    pub async fn count(&self) -> Result<u64> {
        let mut records = 0;
        for map in Layer::maps(self).await? {
            let mut pages = Layer::load(self, &map, Wanted::All).await?.pages;
            while let Some(page) = pages.try_next().await? {
                records += page.len() as u64;
            }
            drop(pages);
            Layer::release(self, &map).await?;
        }
        Ok(records)
    }

    /// Drops all maps of the namespace, as [`drop_map`](Provider::drop_map) does. Not
    /// atomic: after an error, some of them are dropped.
    ///
    /// # Errors
    ///
    /// Those of [`maps`](Provider::maps) and [`drop_map`](Provider::drop_map).
    pub async fn drop_all(&self) -> Result<()> {
        for map in Layer::maps(self).await? {
            Layer::drop_map(self, &map).await?;
        }
        Ok(())
    }

    /// The name of a map in the wrapped provider.
    fn full(&self, map: &MapName) -> Result<MapName> {
        check_not_reserved(map)?;
        Ok(map.within(&self.namespace))
    }

    /// The error with the name of the map in this namespace.
    fn renamed(&self, error: Error) -> Error {
        let full = error.map().and_then(|map| MapName::parse(map).ok());
        match full.and_then(|full| full.without(&self.namespace)) {
            Some(map) => error.on_map(map),
            None => error,
        }
    }
}

/// Checks that no map of a namespace is taken for the copies of unreadable records of a
/// map beside the namespace.
fn check_not_reserved(map: &MapName) -> Result<()> {
    if map.as_str().split('/').next() != Some(ASIDE) {
        return Ok(());
    }
    let message = "the name `unreadable` is reserved in a namespace, for copies of unreadable \
                   records; use another name";
    Err(Error::new(ErrorKind::Invalid, message).on_map(map))
}

#[async_trait]
impl<P: Provider> Layer for Namespaced<P> {
    fn inner(&self) -> &dyn Provider {
        &self.inner
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let load = self.inner.load(&self.full(map)?, wanted).await;
        let mut load = load.map_err(|error| self.renamed(error))?;
        load.pages = load.pages.map_err(|error| self.renamed(error)).boxed();
        Ok(load)
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let parts = batch.maps.iter().map(|part| {
            Ok(MapBatch {
                map: self.full(&part.map)?,
                ..part.clone()
            })
        });
        let batch = Batch {
            maps: parts.collect::<Result<_>>()?,
            ..batch.clone()
        };
        let committed = self.inner.commit(&batch).await;
        let mut committed = committed.map_err(|error| self.renamed(error))?;
        for skipped in &mut committed.skipped {
            if let Some(map) = skipped.map.without(&self.namespace) {
                skipped.map = map;
            }
        }
        Ok(committed)
    }

    async fn release(&self, map: &MapName) -> Result<()> {
        let released = self.inner.release(&self.full(map)?).await;
        released.map_err(|error| self.renamed(error))
    }

    /// The maps of this namespace, with their names in it.
    async fn maps(&self) -> Result<Vec<MapName>> {
        let maps = self.inner.maps().await?;
        let own = maps.iter().filter_map(|map| map.without(&self.namespace));
        Ok(own.filter(|map| check_not_reserved(map).is_ok()).collect())
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        let dropped = self.inner.drop_map(&self.full(map)?).await;
        dropped.map_err(|error| self.renamed(error))
    }
}
