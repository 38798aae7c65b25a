//! Loads from the primary and from the standby.

use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Failover, limit::within, watermark};
use crate::{
    error::{Error, ErrorKind, Result},
    layer::Layer,
    load::{Load, Wanted},
    name::MapName,
    provider::Provider,
    record::{Record, Revision},
};

impl<P: Provider> Failover<P> {
    /// Begins a load, and reads its first page: many stores notice only then that they are down.
    pub(super) async fn load_from_primary(
        &self,
        map: &MapName,
        wanted: Wanted,
    ) -> Result<Load<'_>> {
        within(self.options.timeout, async {
            let mut load = self.inner().load(map, wanted).await?;
            let mut pages = load.pages.fuse();
            let first = pages.try_next().await?;
            load.pages = stream::iter(first.map(Ok)).chain(pages).boxed();
            Ok(load)
        })
        .await
    }

    pub(super) async fn load_from_standby(
        &self,
        map: &MapName,
        wanted: Wanted,
    ) -> Result<Load<'_>> {
        if self.mirror.is_none() {
            let load = self.standby().load(map, wanted).await?;
            // All commits up to the horizon are there, and a commit's revision is at least its
            // time.
            let last = Duration::from_millis(load.horizon.get());
            let copied_at = SystemTime::UNIX_EPOCH.checked_add(last);
            let copied_at = copied_at.unwrap_or(SystemTime::UNIX_EPOCH);
            return Ok(load.with_incarnation(None).with_copied_at(Some(copied_at)));
        }
        if matches!(wanted, Wanted::Changed { .. }) {
            let message = "a copy has no tombstones and revisions of the primary";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        // Before the load, which therefore has everything that the watermark claims.
        let stored = watermark::read(&*self.standby, map).await?;
        let known = stored.map(|(known, _)| known);
        let complete = known.and_then(|known| Some((known.revision, known.copied_at?.time()?)));
        let Some((horizon, copied_at)) = complete else {
            let message = "the standby has no complete copy of the map";
            return Err(Error::new(ErrorKind::Unavailable, message));
        };
        let mut load = self.standby().load(map, wanted).await?;
        load.horizon = horizon;
        // The standby assigns revisions of its own. Taken for one of the primary, such a number
        // could satisfy a condition that does not hold.
        load.pages = load.pages.map_ok(without_revisions).boxed();
        Ok(load.with_incarnation(None).with_copied_at(Some(copied_at)))
    }
}

/// The error of the primary, if the standby failed too.
pub(super) fn nor_from_standby(down: &Error, error: &Error) -> Error {
    down.clone()
        .and_say(&format!("the standby failed too: {error}"))
}

fn without_revisions(mut page: Vec<Record>) -> Vec<Record> {
    for record in &mut page {
        record.revision = Revision::ZERO;
    }
    page
}
