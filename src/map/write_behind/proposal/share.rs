//! A map's share of an atomic commit: the changes for the store, and the values
//! that are applied to memory once the store has committed them.

use std::{any::Any, sync::Arc};

use crate::{
    batch::{MapBatch, Otherwise},
    error::Result,
    map::table::reentrancy::ReentrancyGuard,
    name::MapName,
    record::{Record, Revision},
};

/// A share of a map, with any value type.
pub(crate) trait Share: Any + Send + Sync {
    /// The share as `Any`, to downcast to its type.
    fn as_any(&mut self) -> &mut dyn Any;

    fn name(&self) -> &MapName;

    /// Identifies the open map: handles of one map have the same id.
    fn id(&self) -> usize;

    /// Completes the share; nothing is added from now on.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be committed.
    fn seal(&mut self) -> Result<()>;

    /// Encodes its values and verifies them. That may be slow, so it runs on the
    /// map's runtime, not on the caller's task.
    ///
    /// # Errors
    ///
    /// `Refused`, naming the key, if a value does not decode again.
    fn encode(&mut self) -> Result<()>;

    fn is_empty(&self) -> bool;

    /// Whether it has conditions.
    fn is_conditional(&self) -> bool;

    fn keys(&self) -> Vec<Arc<str>>;

    fn part(&self, otherwise: Otherwise) -> MapBatch;

    /// Marks its entries as part of a commit that is about to be sent. The map's
    /// flusher commits nothing meanwhile, and has committed earlier writes to them.
    fn mark_proposed(&mut self);

    /// Locks the entries.
    fn lock(&mut self) -> Box<dyn Landing + '_>;

    /// Drops replaced values, after the locks are released.
    fn landed(&mut self);

    /// Records that the store holds this record instead.
    fn learn(&self, key: &Arc<str>, found: Option<Record>);

    /// Removes the marks of its entries, because the changes were not applied and
    /// will not be. If `uncertain`, it will never be known whether they were
    /// applied.
    fn withdraw(&self, uncertain: bool);
}

/// Locked entries to which a commit is about to be applied.
pub(crate) trait Landing {
    fn land(&mut self, revision: Option<Revision>);
}

/// Applies a commit to memory at one point in time: a reader sees all of it or
/// none.
///
/// Entries of several maps are locked in the order of the shares, which is the
/// order of the maps' names, so two such commits cannot deadlock.
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
