//! Loads: the pages of all shards.

use std::{collections::BTreeMap, future::ready, sync::Arc};

use futures_util::{
    StreamExt, TryStreamExt,
    future::try_join_all,
    stream::{self, BoxStream},
};

use super::{Shards, routing::owner};
use crate::{
    error::{Error, ErrorKind, Result},
    load::{Load, Wanted},
    name::MapName,
    record::{Record, Revision},
};

impl Shards {
    pub(super) async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let generation = self.generation().await?;
        let parts = self.parts(&wanted).map_err(|error| error.on_map(map))?;
        let loads = parts
            .into_iter()
            .map(|(n, part)| self.ask(n, map, part, generation));
        let loads = try_join_all(loads).await?;
        if loads.len() == self.list.len() {
            self.known.lock().insert(map.clone());
        }
        let mut load = Load::new(Revision::ZERO, stream::empty().boxed());
        load.incarnation = {
            let mut incarnations = self.incarnations.lock();
            let latest = incarnations.latest().clone();
            incarnations.combined(&latest)
        };
        // The highest one: the map's next revision must exceed those of all shards.
        load.horizon = loads
            .iter()
            .map(|load| load.horizon)
            .max()
            .unwrap_or_default();
        // A map must not take a shard's old copy for one that has all that the map has seen.
        let copies = loads.iter().filter(|load| load.copied_at.is_some());
        load.horizon = copies
            .map(|copy| copy.horizon)
            .min()
            .unwrap_or(load.horizon);
        load.copied_at = loads.iter().filter_map(|load| load.copied_at).min();
        load.total_hint = loads.iter().map(|load| load.total_hint).sum();
        if let [one] = &*loads {
            (load.cleared, load.pruned_to) = (one.cleared, one.pruned_to);
        }
        let pages: Vec<_> = loads.into_iter().map(|load| load.pages).collect();
        load.pages = match wanted {
            Wanted::Page { limit, .. } => Load::of(load.horizon, first(pages, limit).await?).pages,
            _ => until_error(stream::select_all(pages)),
        };
        Ok(load)
    }

    /// Learns the last revisions of a map from all shards, unless it was loaded before.
    pub(super) async fn know(&self, map: &MapName) -> Result<()> {
        if !self.known.lock().contains(map) {
            self.learn(map).await?;
        }
        Ok(())
    }

    pub(super) async fn learn(&self, map: &MapName) -> Result<()> {
        let nothing = || Wanted::Keys([].into());
        let heads = self.list.iter().map(|shard| async {
            let head = shard.provider.load(map, nothing()).await;
            shard.saw(head.map_err(|error| shard.blame(error))?.horizon);
            Ok::<_, Error>(())
        });
        try_join_all(heads).await?;
        self.known.lock().insert(map.clone());
        Ok(())
    }

    /// The part of the load that each shard answers.
    fn parts(&self, wanted: &Wanted) -> Result<Vec<(usize, Wanted)>> {
        match wanted {
            Wanted::Keys(keys) => {
                let mut by_shard: BTreeMap<usize, Vec<Arc<str>>> = BTreeMap::new();
                // No keys are asked of the first shard, for its state.
                by_shard.entry(0).or_default();
                for key in &**keys {
                    let shard = by_shard.entry(owner(&self.list, key)).or_default();
                    shard.push(key.clone());
                }
                let parts = by_shard.into_iter();
                Ok(parts
                    .map(|(n, keys)| (n, Wanted::Keys(keys.into())))
                    .collect())
            }
            Wanted::Changed { .. } if self.list.len() > 1 => {
                let message = "the changes of a map on several shards have no common order; load \
                               all entries instead";
                Err(Error::new(ErrorKind::Unsupported, message))
            }
            _ => Ok((0..self.list.len()).map(|n| (n, wanted.clone())).collect()),
        }
    }

    async fn ask<'a>(
        &'a self,
        n: usize,
        map: &MapName,
        wanted: Wanted,
        generation: u64,
    ) -> Result<Load<'a>> {
        let shard = &self.list[n];
        let load = shard.provider.load(map, wanted).await;
        let mut load = load.map_err(|error| shard.blame(error))?;
        shard.saw(load.horizon);
        self.incarnations.lock().saw(n, load.incarnation);
        // After the last page. A reshard ends the generation on all shards before it moves
        // the first entry. So if no shard knows of the end after its pages were read, they
        // were all read before that.
        let is_last =
            stream::once(
                async move { shard.check_not_ended(generation).await.map(|()| Vec::new()) },
            );
        let pages = load
            .pages
            .map_err(|error| shard.blame(error))
            .chain(is_last);
        load.pages = pages.try_filter(|page| ready(!page.is_empty())).boxed();
        Ok(load)
    }
}

/// Ends a stream after its first error.
fn until_error<'a>(
    pages: impl stream::Stream<Item = Result<Vec<Record>>> + Send + 'a,
) -> BoxStream<'a, Result<Vec<Record>>> {
    let until = |failed: &mut bool, page: Result<Vec<Record>>| {
        let next = (!*failed).then_some(page);
        *failed |= matches!(next, Some(Err(_)));
        ready(next)
    };
    pages.scan(false, until).boxed()
}

/// The first records of all shards, in the order of their keys.
async fn first(
    shards: Vec<BoxStream<'_, Result<Vec<Record>>>>,
    limit: usize,
) -> Result<Vec<Record>> {
    let records = try_join_all(shards.into_iter().map(TryStreamExt::try_concat)).await?;
    let mut records = records.concat();
    records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    records.truncate(limit);
    Ok(records)
}
