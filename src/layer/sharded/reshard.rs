//! Resharding: moving entries to the shards of another list.
//!
//! # Why it may be killed at any point
//!
//! 1. The lease: every shard notes this run as its mover, and the old shards end their
//!    generation. From then on no map commits, and no map opens.
//! 2. Page by page, the entries of an old shard that belong to another are put there, and
//!    deleted once they are stored there. A second run finds them in one place or in both,
//!    with the same contents, because no other process writes.
//! 3. The layout of the next generation: new shards first, then removed ones, then those
//!    that stay. So while one is missing, an old shard still has the ended generation, and
//!    no map opens.
//!
//! A second run that starts while the first one is only slow takes the lease over: each
//! commit of a run expects the revision that the mover's note got from the commit before it.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::try_join_all;

use super::{
    Sharded,
    layout::{Layout, Mover, Notes, check_abilities, put_ended, put_layout, put_mover},
    routing::{Shard, owner},
};
use crate::{
    batch::{Change, MapBatch},
    error::{Error, ErrorKind, Result},
    load::Wanted,
    name::MapName,
    record::{Record, Revision},
};

/// How many entries are read at a time; their values may be large.
const PAGE: usize = 200;

/// A shard of either list, and the lease on it.
struct Leased<'a> {
    shard: &'a Shard,
    notes: Notes,
    is_old: bool,
    is_new: bool,
    /// The revision of the mover's note.
    lease: Revision,
}

/// A run.
struct Move<'a> {
    shards: Vec<Leased<'a>>,
    mover: Mover,
    to: &'a Sharded,
    moved: u64,
}

impl Sharded {
    /// Moves the entries of these shards to those of another list, and stores that list.
    /// Returns the number of entries that were moved: those that a new shard gets, and those
    /// of a removed one. A store that is in both lists has the same name in both.
    ///
    /// Close all maps first, in all processes. A map that is open nevertheless stops writing:
    /// its commits and loads fail as `Superseded`, and its changes stay pending.
    ///
    /// If the future is dropped, or after an error or a crash, the reshard may be unfinished: no
    /// map opens then. Call it again with the same lists to resume it. A call after the reshard
    /// is finished does nothing and returns 0. Of two runs at a time, one fails, and no entry is
    /// lost.
    ///
    /// Entries keep their values and times. They get new revisions, which exceed the old ones.
    ///
    /// # Errors
    ///
    /// - `Invalid` if the stored list is neither of the two, if a reshard to a third list was
    ///   begun, or if a new shard has entries.
    /// - `Superseded` if another run has taken over.
    /// - Those of the shards.
    pub async fn reshard(&self, to: &Self) -> Result<u64> {
        let mut shards = self.both(to).await?;
        let is_set_up = |leased: &Leased<'_>| {
            let layout = leased.notes.layout.as_ref();
            !leased.is_old || layout.is_some_and(|(layout, _)| layout.complete)
        };
        if !shards.iter().all(is_set_up) {
            self.0.generation().await?;
            shards = self.both(to).await?;
        }
        let next = to.0.names();
        let layouts = { shards.iter() }.map(|leased| leased.notes.layout.as_ref());
        let is_next = |layout: Option<&(Layout, Revision)>| {
            layout.is_some_and(|(layout, _)| layout.shards == next && layout.complete)
        };
        if layouts.clone().all(is_next) {
            return Ok(0);
        }
        let generation = check(&shards, &self.0.names(), &next)?;
        let from = self.0.names();
        let mover = Mover { generation, from };
        for leased in shards.iter().filter(|leased| !leased.is_old) {
            leased.check_new(&mover, &next).await?;
        }
        let mut run = Move {
            shards,
            mover,
            to,
            moved: 0,
        };
        run.lease().await?;
        for from in 0..run.shards.len() {
            if run.shards[from].is_old {
                run.empty(from).await?;
            }
        }
        run.publish().await?;
        Ok(run.moved)
    }

    /// The shards of both lists.
    async fn both<'a>(&'a self, to: &'a Self) -> Result<Vec<Leased<'a>>> {
        let is_in = |list: &Self, shard: &Shard| list.shards().any(|name| *name == *shard.name);
        let removed = self.0.list.iter().filter(|shard| !is_in(to, shard));
        let all = to.0.list.iter().chain(removed).map(|shard| async move {
            Ok(Leased {
                notes: shard.notes().await?,
                is_old: is_in(self, shard),
                is_new: is_in(to, shard),
                lease: Revision::ZERO,
                shard,
            })
        });
        try_join_all(all).await
    }
}

/// Returns the generation of the old list.
fn check(shards: &[Leased<'_>], old: &[Arc<str>], next: &[Arc<str>]) -> Result<u64> {
    let layouts = shards.iter().filter_map(|leased| {
        let (layout, _) = leased.notes.layout.as_ref().filter(|_| leased.is_old)?;
        (layout.shards == old).then_some(layout.generation)
    });
    let generation = layouts.max().ok_or_else(|| {
        let message = format!("no shard keeps the list {old:?}, from which entries are to move");
        Error::new(ErrorKind::Invalid, message)
    })?;
    for leased in shards {
        let blame = |message: String| leased.shard.blame(Error::new(ErrorKind::Invalid, message));
        let layout = leased.notes.layout.as_ref().map(|(layout, _)| layout);
        let is_own = layout.is_none_or(|layout| layout.shard == leased.shard.name);
        let is_of_either = layout.is_some_and(|layout| {
            let expected = if layout.generation == generation {
                old
            } else {
                next
            };
            layout.complete && layout.shards == expected
        });
        if !is_own || leased.is_old && !is_of_either {
            return Err(blame(format!(
                "its layout is {layout:?}; expected the list {old:?}"
            )));
        }
        let planned = leased.notes.ended.get(&generation);
        if let Some(planned) = planned.filter(|planned| *planned != next) {
            let message = "another reshard was begun and comes first; it moves to the list";
            return Err(blame(format!("{message} {planned:?}")));
        }
    }
    Ok(generation)
}

impl Move<'_> {
    async fn lease(&mut self) -> Result<()> {
        let next = self.to.0.names();
        for leased in &mut self.shards {
            let last = leased.notes.mover.as_ref().map(|(_, revision)| *revision);
            let mut changes = vec![put_mover(&self.mover, last)];
            // Also that of a new shard, if its list was used before.
            let layout = leased.notes.layout.as_ref();
            let ended = layout.map(|(layout, _)| layout.generation);
            let ended = ended.filter(|generation| *generation <= self.mover.generation);
            changes.extend(ended.map(|generation| put_ended(generation, &next)));
            leased.commit(changes, Revision::ZERO, None).await?;
        }
        Ok(())
    }

    /// Moves the entries of a shard that belong to others.
    async fn empty(&mut self, from: usize) -> Result<()> {
        let store = self.shards[from].shard;
        let maps = store
            .provider
            .maps()
            .await
            .map_err(|error| store.blame(error))?;
        for map in maps.into_iter().filter(|map| *map != MapName::of_layout()) {
            let mut after = None;
            loop {
                let load = store.provider.load(&map, Wanted::page(after, PAGE)).await;
                let load = load.map_err(|error| store.blame(error))?;
                let horizon = load.horizon;
                let records = load.into_records().await?;
                let Some(last) = records.last() else { break };
                after = Some(last.key.clone());
                self.pass_on(from, &map, records, horizon).await?;
            }
        }
        Ok(())
    }

    async fn pass_on(
        &mut self,
        from: usize,
        map: &MapName,
        records: Vec<Record>,
        horizon: Revision,
    ) -> Result<()> {
        let list = &self.to.0.list;
        let (mut puts, mut deletes) = (BTreeMap::<&str, Vec<_>>::new(), Vec::new());
        for record in records {
            let target = &*list[owner(list, &record.key)].name;
            if *target != *self.shards[from].shard.name {
                deletes.push(Change::delete(record.key.clone()));
                puts.entry(target).or_default().extend(copy_of(record));
            }
        }
        self.moved += deletes.len() as u64;
        for leased in &mut self.shards {
            if let Some(puts) = puts.remove(&*leased.shard.name) {
                // Above the revisions that the entries had, because readers know those.
                leased.again(map, puts, &self.mover, horizon).await?;
            }
        }
        // Only now that the copies are durable.
        if !deletes.is_empty() {
            let leased = &mut self.shards[from];
            leased
                .again(map, deletes, &self.mover, Revision::ZERO)
                .await?;
        }
        Ok(())
    }

    async fn publish(&mut self) -> Result<()> {
        self.shards
            .sort_by_key(|leased| (leased.is_old, leased.is_new));
        for leased in &mut self.shards {
            let layout = Layout {
                generation: self.mover.generation + 1,
                shards: self.to.0.names(),
                shard: leased.shard.name.clone(),
                complete: true,
            };
            let mover = put_mover(&self.mover, Some(leased.lease));
            let changes = vec![mover, put_layout(&layout)];
            leased.commit(changes, Revision::ZERO, None).await?;
        }
        Ok(())
    }
}

impl Leased<'_> {
    /// # Errors
    ///
    /// `Unsupported` if the new shard lacks an ability, `Invalid` if it is in use or has entries.
    async fn check_new(&self, mover: &Mover, next: &[Arc<str>]) -> Result<()> {
        check_abilities(self.shard)?;
        if { self.notes.mover.as_ref() }.is_some_and(|(last, _)| last == mover) {
            // An earlier run has begun to fill it.
            return Ok(());
        }
        // It may have been removed from a list before, and the new list may have been opened
        // too early. Any other list is in use.
        let layout = self.notes.layout.as_ref().map(|(layout, _)| layout);
        let is_used = |layout: &&Layout| {
            let is_other = layout.shards.contains(&layout.shard) && layout.shards != next;
            is_other || layout.generation > mover.generation
        };
        if let Some(used) = layout.filter(is_used) {
            let message = format!("a new shard belongs to another list: {:?}", used.shards);
            return Err(self.shard.blame(Error::new(ErrorKind::Invalid, message)));
        }
        self.shard.check_empty().await
    }

    /// Commits changes of a map under the lease.
    async fn again(
        &mut self,
        map: &MapName,
        changes: Vec<Change>,
        mover: &Mover,
        after: Revision,
    ) -> Result<()> {
        let mover = put_mover(mover, Some(self.lease));
        let part = MapBatch::new(map.clone(), changes);
        self.commit(vec![mover], after, Some(part)).await
    }

    async fn commit(
        &mut self,
        layout: Vec<Change>,
        after: Revision,
        part: Option<MapBatch>,
    ) -> Result<()> {
        let committed = self.shard.write(layout, after, part).await;
        let committed = committed.map_err(|error| match error.kind() {
            ErrorKind::Conflict => {
                let message = "another reshard has taken over; this one stops";
                self.shard.blame(Error::new(ErrorKind::Superseded, message))
            }
            _ => error,
        })?;
        self.lease = committed.revision.unwrap_or_default();
        Ok(())
    }
}

fn copy_of(record: Record) -> Option<Change> {
    let put = Change::put(record.key, record.value?, record.expires_at);
    Some(put.written_at(record.updated_at))
}
