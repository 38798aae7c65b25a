//! A map's share of a commit that lands whole or not at all: the changes for the store,
//! and the values that memory takes over once the store has them.

use std::{any::Any, sync::Arc};

use crate::{
    batch::{MapBatch, Otherwise},
    error::Result,
    map::table::reentrancy::ReentrancyGuard,
    name::MapName,
    record::{Record, Revision},
};

/// A share of a map of any type of values.
pub(crate) trait Share: Any + Send + Sync {
    /// The share with its type, which can be asked for.
    fn as_any(&mut self) -> &mut dyn Any;

    fn name(&self) -> &MapName;

    /// Identifies the open map: handles of the same one have the same.
    fn id(&self) -> usize;

    /// Nothing is added from now on.
    ///
    /// # Errors
    ///
    /// Why it cannot be committed.
    fn seal(&mut self) -> Result<()>;

    /// Encodes its values, and reads them back. That may take long, so it is done on the
    /// map's runtime and not by the caller.
    ///
    /// # Errors
    ///
    /// `Refused`, naming the key, if the map could not read a value again.
    fn encode(&mut self) -> Result<()>;

    fn is_empty(&self) -> bool;

    /// Whether it has conditions.
    fn is_conditional(&self) -> bool;

    fn keys(&self) -> Vec<Arc<str>>;

    fn part(&self, otherwise: Otherwise) -> MapBatch;

    /// Marks the entries as part of a commit that is about to be sent. The map's flusher
    /// commits nothing meanwhile, and has committed earlier writes to them.
    fn enlist(&mut self);

    /// Locks the entries.
    fn lock(&mut self) -> Box<dyn Landing + '_>;

    /// No lock is held any more: replaced values may be dropped.
    fn landed(&mut self);

    /// The store was found to hold this instead.
    fn learn(&self, key: &Arc<str>, found: Option<Record>);

    /// Removes the marks of entries whose change has not landed and will not; or, if
    /// `uncertain`, of which that will not be known.
    fn withdraw(&self, uncertain: bool);
}

/// Locked entries that are about to take over their committed values.
pub(crate) trait Landing {
    fn land(&mut self, revision: Option<Revision>);
}

/// Memory takes over a commit at one point in time: a reader sees all of it or none.
///
/// Entries of several maps are locked in the order of the shares, which is that of the
/// maps' names, so two such commits never wait for each other.
pub(crate) fn land_all(shares: &mut [Box<dyn Share>], revision: Option<Revision>) {
    {
        let _guard = ReentrancyGuard::enter();
        let mut locked: Vec<_> = shares.iter_mut().map(|share| share.lock()).collect();
        for share in &mut locked {
            share.land(revision);
        }
    }
    for share in shares {
        share.landed();
    }
}
