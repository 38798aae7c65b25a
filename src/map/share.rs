//! A map's share of a commit that lands whole or not at all: what the store is
//! to be told, and what memory takes over once the store has it.

use std::{any::Any, sync::Arc};

use super::{hold::Hold, inside::Inside, line::Line};
use crate::{
    batch::{MapBatch, Otherwise},
    error::Result,
    name::MapName,
    record::{Record, Revision},
};

/// A share of a map, whatever its values are.
pub(super) trait Share: Any + Send + Sync {
    /// The share with its type, which can be asked for.
    fn as_any(&mut self) -> &mut dyn Any;

    fn name(&self) -> &MapName;

    /// Which open map it is: handles of the same one have the same.
    fn id(&self) -> usize;

    fn line(&self) -> Line;

    /// Nothing is added any more.
    ///
    /// # Errors
    ///
    /// Why it cannot be committed.
    fn seal(&mut self) -> Result<()>;

    /// Encodes its values, and reads them back. That may take its time, so it is
    /// done on the map's runtime, and not on the way of the one who waits.
    ///
    /// # Errors
    ///
    /// `Refused`, naming the key, if the map could not read a value again.
    fn encode(&mut self) -> Result<()>;

    fn is_empty(&self) -> bool;

    /// Whether it asks for more than the last commit's winning.
    fn is_conditional(&self) -> bool;

    fn keys(&self) -> Vec<Arc<str>>;

    fn part(&self, otherwise: Otherwise) -> MapBatch;

    /// Marks the entries as part of a commit that is about to be sent: the map's
    /// flusher stands still, and has committed what was written before. What is to
    /// be left as it is, is left as it is by now.
    fn enlist(&mut self);

    /// Asks the map's flusher to stand still.
    fn hold(&self, hold: Hold);

    /// Locks the entries concerned.
    fn lock(&mut self) -> Box<dyn Landing + '_>;

    /// Nothing is locked any more: what was replaced may go.
    fn landed(&mut self);

    /// The store holds this instead.
    fn learn(&self, key: &Arc<str>, found: Option<Record>);

    /// What has not landed, will not; unless nobody will find out, if `uncertain`.
    /// The entries are marked no more.
    fn withdraw(&self, uncertain: bool);
}

/// Entries that are locked, and are about to take over what was committed.
pub(super) trait Landing {
    fn land(&mut self, revision: Option<Revision>);
}

/// Memory takes over what was committed, all of it at one point in time: whoever
/// looks sees all of it or none.
///
/// Whoever locks entries of several maps does so in the order of the shares.
pub(super) fn land_all<'a>(
    shares: impl IntoIterator<Item = &'a mut Box<dyn Share>>,
    revision: Option<Revision>,
) {
    let mut shares: Vec<_> = shares.into_iter().collect();
    {
        let _inside = Inside::enter();
        let mut locked: Vec<_> = shares.iter_mut().map(|share| share.lock()).collect();
        for share in &mut locked {
            share.land(revision);
        }
    }
    for share in &mut shares {
        share.landed();
    }
}
