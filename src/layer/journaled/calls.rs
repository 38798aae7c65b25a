//! The calls of a provider, with a journal.

use std::{sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;

use super::{
    Journaled,
    map_journal::MapJournal,
    owner::{beside, is_beside},
    state::{State, blocked, blocking, needs_a_person},
};
use crate::{
    batch::{Batch, Committed, Expect, MapBatch},
    error::{Error, Result},
    incarnation::Incarnation,
    layer::Layer,
    load::{Load, Wanted},
    name::MapName,
    provider::Provider,
    trace::PROVIDER,
};

/// For how long a release or a close waits for the remote.
const CLOSING: Duration = Duration::from_secs(10);

impl<P: Provider> Journaled<P> {
    async fn acknowledge_locally(&self, batch: &Batch, part: &MapBatch) -> Result<Committed> {
        let state = self.state(&part.map).await?;
        if !is_confirmed(&state).await {
            let mut row = state.row.lock().await;
            state.keep(&mut row).await.map_err(Error::nothing_applied)?;
        }
        state.check(batch, part)?;
        let (max, batch) = (self.options.max_bytes, batch.clone());
        let wake = state.wake.clone();
        let appended = state.with_file(move |journal, folder| {
            let appended = journal.append(folder, &batch, max);
            // Here, because this call may have been dropped.
            wake.notify_one();
            appended
        });
        appended.await?;
        let known = state.known.lock().incarnation;
        Ok(Committed::default().with_incarnation(known.or(part.incarnation)))
    }

    /// Passes a batch on, after everything that was acknowledged before it.
    async fn pass(&self, batch: &Batch) -> Result<Committed> {
        let mut states = Vec::new();
        for part in batch.maps.iter() {
            let state = self.state(&part.map).await?;
            state.drain().await.map_err(blocked)?;
            states.push(state);
        }
        let committed = self.inner().commit(batch).await;
        for state in states {
            state.learn(batch.id, &committed);
            if committed.is_ok() {
                let mut journal = state.journal.lock().await;
                journal.writers.insert(batch.id.writer, batch.id.sequence);
            }
        }
        committed
    }

    /// The part of a batch that is acknowledged locally: write-behind of one map. The remote
    /// may refuse a change later, and then the batch is applied without it; an atomic commit
    /// must not be.
    ///
    /// An empty batch fences an earlier one of its writer, which may have been passed on and
    /// may be on its way: only the remote can answer it.
    fn local_part<'a>(&self, batch: &'a Batch) -> Option<&'a MapBatch> {
        let [part] = &*batch.maps else { return None };
        let is_plain = part
            .changes
            .iter()
            .all(|change| change.expect == Expect::Any);
        let is_empty = part.changes.is_empty() && !part.clear;
        (self.is_local() && batch.divisible && is_plain && !is_empty).then_some(part)
    }
}

#[async_trait]
impl<P: Provider> Layer for Journaled<P> {
    fn inner(&self) -> &dyn Provider {
        &*self.inner
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let state = self.state(map).await?;
        let mut row = state.row.lock().await;
        let settled = match state.drain_as(&mut row).await {
            Ok(()) if self.is_local() => state.keep(&mut row).await,
            drained => drained,
        };
        match settled {
            Err(error) if needs_a_person(&error) => Err(blocked(error)),
            Err(error) if self.is_local() && !is_confirmed(&state).await => Err(error),
            Err(error) if state.known.lock().content.batches > 0 => {
                state.overlaid(wanted, error).await
            }
            _ => {
                let load = self.inner().load(map, wanted).await?;
                state.learn_incarnation(load.incarnation);
                Ok(load)
            }
        }
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        match self.local_part(batch) {
            Some(part) => self.acknowledge_locally(batch, part).await,
            None => self.pass(batch).await,
        }
    }

    /// Drains the journal if the remote answers. Otherwise the rest is sent later.
    async fn release(&self, map: &MapName) -> Result<()> {
        let state = self.state(map).await?;
        if !drained_in_time(&state).await {
            return Ok(());
        }
        state.with_file(MapJournal::tidy).await?;
        self.inner().release(map).await
    }

    /// The maps of the remote, and those that are in a journal only.
    async fn maps(&self) -> Result<Vec<MapName>> {
        self.folder().await?;
        let mut maps = self.inner().maps().await?;
        maps.retain(|map| !is_beside(map));
        for state in self.states() {
            let is_pending = state.known.lock().content.batches > 0;
            if is_pending && !maps.contains(&state.map) {
                maps.push(state.map.clone());
            }
        }
        Ok(maps)
    }

    /// Drops the map, then its journal and the row of its owner.
    ///
    /// The journal is drained first. So if the map cannot be dropped, nothing that was
    /// acknowledged is lost. It is emptied after the drop: entries that were added meanwhile
    /// count as from before it. After a crash in between, they are refused, because their
    /// writers have not seen the drop. The row goes last; without the map it means nothing.
    async fn drop_map(&self, map: &MapName) -> Result<()> {
        let state = self.state(map).await?;
        let mut row = state.row.lock().await;
        state.drain_as(&mut row).await.map_err(blocked)?;
        self.inner().drop_map(map).await?;
        let forgotten = async {
            state.with_file(MapJournal::discard).await?;
            *row = None;
            let nothing = self.inner().load(map, Wanted::Keys([].into())).await?;
            state.dropped(nothing.horizon);
            self.inner().drop_map(&beside(map)?).await
        };
        forgotten.await.map_err(Error::outcome_unknown)
    }

    /// Pings the remote. If it fails, the journal is enough, because local saves go on.
    async fn ping(&self) -> Result<Option<Incarnation>> {
        let folder = self.folder().await?;
        match self.inner().ping().await {
            Err(_) if self.is_local() => {
                let folder = folder.clone();
                blocking(move || folder.check_in_place())
                    .await
                    .map(|()| None)
            }
            answer => answer,
        }
    }

    /// Drains the journals if the remote answers, keeps the rest for the next open, and
    /// unlocks the folder.
    async fn close(&self) -> Result<()> {
        self.journals.is_closed.store(true, Ordering::Relaxed);
        let mut tidied = Ok(());
        for state in self.states() {
            if drained_in_time(&state).await {
                tidied = tidied.and(state.with_file(MapJournal::tidy).await);
            }
        }
        self.drains.stop();
        if let Some(folder) = self.journals.folder.get() {
            folder.unlock();
        }
        tidied.and(self.inner().close().await)
    }
}

/// Whether the remote has ever confirmed that this folder is the owner of the map.
async fn is_confirmed(state: &State) -> bool {
    state.journal.lock().await.tokens.confirmed.is_some()
}

/// Whether the journal could be drained in a time that a caller who closes can wait for.
async fn drained_in_time(state: &State) -> bool {
    let drained = tokio::time::timeout(CLOSING, state.drain()).await;
    let is_drained = matches!(drained, Ok(Ok(())));
    if !is_drained {
        let content = state.known.lock().content;
        tracing::warn!(target: PROVIDER, map = %state.map, "closed before the journal was drained; {content}");
    }
    is_drained
}
