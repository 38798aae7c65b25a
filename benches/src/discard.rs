//! A provider that stores nothing.

use async_trait::async_trait;
use persistify::{Batch, Committed, Load, MapName, Provider, Result, Revision, Wanted};

/// Accepts and drops every batch, so that only the cost of the map is measured.
#[derive(Clone, Copy, Debug)]
pub struct Discard;

#[async_trait]
impl Provider for Discard {
    async fn load<'a>(&'a self, _map: &MapName, _wanted: Wanted) -> Result<Load<'a>> {
        Ok(Load::of(Revision::default(), Vec::new()))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        Ok(Committed::at(batch.revision_after(batch.after)))
    }
}
