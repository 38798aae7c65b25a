//! The layout: the list of shards and its generation, kept in a map of each shard.
//!
//! # First use
//!
//! Each shard first gets an incomplete layout, and only once all have one, a complete one.
//! So a crash in between leaves incomplete layouts, which the next open completes, and no
//! entry is written before all are complete. A shard without a layout beside a complete one
//! was replaced by an empty store.
//!
//! # Generations
//!
//! A reshard ends a generation: it stores the key `ended/3` in each shard of generation 3,
//! before it moves an entry. Each commit of generation 3 expects that key to be absent, and
//! each load looks for it after its last page. The keys stay for good: a process may wake up
//! at any time.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Shards, routing::Shard};
use crate::{
    batch::{Batch, BatchId, Change, Committed, Expect, MapBatch, Otherwise, WriterId},
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    load::Wanted,
    name::MapName,
    record::{Payload, Record, Revision},
};

const LAYOUT: &str = "layout";
const MOVER: &str = "mover";
const ENDED: &str = "ended/";

/// How often a first use starts over because another process does the same.
const MAX_ROUNDS: usize = 8;

/// The layout, as one shard keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    pub(super) generation: u64,
    /// The names of all shards, sorted.
    pub(super) shards: Vec<Arc<str>>,
    /// The name of this shard.
    pub(super) shard: Arc<str>,
    pub(super) complete: bool,
}

/// A reshard, as all its shards note it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mover {
    /// The generation that it ends, and its list.
    pub(super) generation: u64,
    pub(super) from: Vec<Arc<str>>,
}

/// Everything that a shard keeps about the layout.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) layout: Option<(Layout, Revision)>,
    /// The last reshard.
    pub(super) mover: Option<(Mover, Revision)>,
    /// The list of shards that followed each generation.
    pub(super) ended: BTreeMap<u64, Vec<Arc<str>>>,
    pub(super) incarnation: Option<Incarnation>,
}

impl Notes {
    fn add(&mut self, record: &Record) -> Result<()> {
        let generation = record.key.strip_prefix(ENDED).map(str::parse);
        match (&*record.key, generation) {
            (LAYOUT, _) => self.layout = Some((read(record)?, record.revision)),
            (MOVER, _) => self.mover = Some((read(record)?, record.revision)),
            (_, Some(Ok(generation))) => _ = self.ended.insert(generation, read(record)?),
            _ => {}
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(record: &Record) -> Result<T> {
    let payload = record.value.as_ref();
    let bytes = payload.map_or(&[][..], |payload| &payload.bytes);
    serde_json::from_slice(bytes).map_err(|error| {
        let message = "the layout of the shards does not decode; restore the map `sharded`";
        Error::new(ErrorKind::Corrupt, message)
            .on_map(MapName::of_layout())
            .on_keys([record.key.clone()])
            .with_source(error)
    })
}

fn put(key: impl Into<Arc<str>>, value: &impl Serialize) -> Change {
    // Lists of names and numbers are always valid JSON.
    let text = serde_json::to_vec(value).unwrap_or_default();
    Change::put(key, Payload::json(text), None)
}

pub(super) fn put_layout(layout: &Layout) -> Change {
    put(LAYOUT, layout)
}

/// Ends a generation; `next` is the list that follows.
pub(super) fn put_ended(generation: u64, next: &[Arc<str>]) -> Change {
    put(format!("{ENDED}{generation}"), &next)
}

pub(super) fn put_mover(mover: &Mover, last: Option<Revision>) -> Change {
    let expect = last.map_or(Expect::Absent, Expect::At);
    put(MOVER, mover).expect(expect, Otherwise::Fail)
}

/// Changes nothing, and fails once the generation has ended.
pub(super) fn unless_ended(generation: u64) -> Change {
    let key = format!("{ENDED}{generation}");
    Change::delete(key).expect(Expect::Absent, Otherwise::Fail)
}

/// The error of a process whose list of shards is no longer in use.
pub(super) fn superseded(generation: u64) -> Error {
    let message = format!(
        "generation {generation} of the list of shards has ended: a reshard moves entries to \
         other shards, or has moved them; nothing was written: open the map again with the new \
         list, once the reshard is finished"
    );
    Error::new(ErrorKind::Superseded, message)
}

impl Shard {
    pub(super) async fn notes(&self) -> Result<Notes> {
        let load = self.provider.load(&MapName::of_layout(), Wanted::All).await;
        let load = load.map_err(|error| self.blame(error))?;
        let mut notes = Notes {
            incarnation: load.incarnation,
            ..Notes::default()
        };
        for record in load.into_records().await? {
            notes.add(&record)?;
        }
        Ok(notes)
    }

    /// # Errors
    ///
    /// `Superseded` if the generation has ended.
    pub(super) async fn check_not_ended(&self, generation: u64) -> Result<()> {
        let key = format!("{ENDED}{generation}").into();
        let wanted = Wanted::Keys([key].into());
        let load = self.provider.load(&MapName::of_layout(), wanted).await;
        let load = load.map_err(|error| self.blame(error))?;
        match load.into_records().await?.first() {
            Some(_) => Err(self.blame(superseded(generation))),
            None => Ok(()),
        }
    }

    /// Commits changes of the layout, and of a map beside it.
    pub(super) async fn write(
        &self,
        layout: Vec<Change>,
        after: Revision,
        beside: Option<MapBatch>,
    ) -> Result<Committed> {
        let layout = MapBatch::new(MapName::of_layout(), layout);
        let parts: Vec<_> = [Some(layout), beside].into_iter().flatten().collect();
        let id = BatchId::new(WriterId::random(), 1);
        let batch = Batch::new(id, after, SystemTime::now(), parts);
        let committed = self.provider.commit(&batch).await;
        committed.map_err(|error| self.blame(error))
    }

    /// Whether it has no entry in any map, except for the layout.
    async fn is_empty(&self) -> Result<bool> {
        for map in self
            .provider
            .maps()
            .await
            .map_err(|error| self.blame(error))?
        {
            let first = self.provider.load(&map, Wanted::page(None, 1)).await?;
            if map != MapName::of_layout() && !first.into_records().await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// # Errors
    ///
    /// `Invalid` if it has entries.
    pub(super) async fn check_empty(&self) -> Result<()> {
        if self.is_empty().await? {
            return Ok(());
        }
        let message = "a new shard has entries already, and some of them may belong to others: \
                       begin with empty stores and copy the entries, or open the store as the \
                       only shard and call `reshard`";
        Err(self.blame(Error::new(ErrorKind::Invalid, message)))
    }
}

impl Shards {
    /// The generation of the layout. The first call checks the layout, or writes it to new
    /// shards.
    ///
    /// # Errors
    ///
    /// See [`Sharded`](super::Sharded).
    pub(super) async fn generation(&self) -> Result<u64> {
        let opened = self.generation.get_or_try_init(|| self.open()).await;
        opened.copied()
    }

    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.list.iter().map(|shard| shard.name.clone()).collect()
    }

    async fn open(&self) -> Result<u64> {
        self.list.iter().try_for_each(check_abilities)?;
        for _ in 0..MAX_ROUNDS {
            let notes = try_join_all(self.list.iter().map(Shard::notes)).await?;
            for (n, notes) in notes.iter().enumerate() {
                self.incarnations.lock().saw(n, notes.incarnation);
            }
            if let Some(generation) = self.check(&notes)? {
                return Ok(generation);
            }
            match self.complete(&notes).await {
                // Another process was first.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                written => written?,
            }
        }
        let message = "another process sets up the same shards; try again";
        Err(Error::new(ErrorKind::Unavailable, message).nothing_applied())
    }

    /// The generation, if all shards have this layout completely.
    fn check(&self, notes: &[Notes]) -> Result<Option<u64>> {
        let found = self.list.iter().zip(notes);
        let found = found.filter_map(|(shard, notes)| {
            let (layout, _) = notes.layout.as_ref()?;
            Some((shard, layout, notes.ended.get(&layout.generation)))
        });
        for (shard, layout, ended) in found.clone() {
            if let Some(next) = ended {
                return Err(shard.blame(unfinished(next)));
            }
            if layout.shards != self.names() {
                return Err(shard.blame(other_list(layout, &self.names())));
            }
            if layout.shard != shard.name {
                return Err(shard.blame(mixed_up(layout)));
            }
        }
        let generations = found.clone().map(|(_, layout, _)| layout.generation);
        let newest = generations.max().unwrap_or(1);
        let is_complete = found.clone().any(|(_, layout, _)| layout.complete);
        let is_old = |notes: &Notes| {
            let layout = notes.layout.as_ref();
            layout.is_none_or(|(layout, _)| layout.generation != newest)
        };
        match self.list.iter().zip(notes).find(|(_, notes)| is_old(notes)) {
            Some((shard, _)) if is_complete => Err(shard.blame(replaced())),
            Some(_) => Ok(None),
            None => Ok(found
                .clone()
                .all(|(_, layout, _)| layout.complete)
                .then_some(newest)),
        }
    }

    /// Writes the next layout of a first use to the shards that lack it.
    async fn complete(&self, notes: &[Notes]) -> Result<()> {
        let all_have_one = notes.iter().all(|notes| notes.layout.is_some());
        for (shard, notes) in self.list.iter().zip(notes) {
            let expect = match &notes.layout {
                Some((layout, revision)) if all_have_one && !layout.complete => {
                    Expect::At(*revision)
                }
                Some(_) => continue,
                None => Expect::Absent,
            };
            if expect == Expect::Absent && self.list.len() > 1 {
                shard.check_empty().await?;
            }
            let layout = Layout {
                generation: 1,
                shards: self.names(),
                shard: shard.name.clone(),
                complete: all_have_one,
            };
            let change = put_layout(&layout).expect(expect, Otherwise::Fail);
            shard.write(vec![change], Revision::ZERO, None).await?;
        }
        Ok(())
    }
}

/// # Errors
///
/// `Unsupported` if the store cannot be a shard.
pub(super) fn check_abilities(shard: &Shard) -> Result<()> {
    let abilities = shard.provider.capabilities();
    if abilities.several_maps && abilities.conditions && !abilities.sharded {
        return Ok(());
    }
    let message = "a shard must be one store that commits to several maps and checks conditions, \
                   such as SQLite or Postgres: each commit checks the list of shards";
    Err(shard.blame(Error::new(ErrorKind::Unsupported, message)))
}

fn unfinished(next: &[Arc<str>]) -> Error {
    let message = format!(
        "a reshard to the list {next:?} was begun and is not finished; nothing was changed: call \
         `reshard` again with the same lists"
    );
    Error::new(ErrorKind::Unusable, message)
}

fn other_list(stored: &Layout, own: &[Arc<str>]) -> Error {
    let added: Vec<_> = own
        .iter()
        .filter(|name| !stored.shards.contains(name))
        .collect();
    let removed: Vec<_> = stored
        .shards
        .iter()
        .filter(|name| !own.contains(name))
        .collect();
    let message = format!(
        "the entries are spread over the shards {:?} (generation {}), and this program lists \
         {own:?}: added {added:?}, removed {removed:?}; use the stored list, or call `reshard` to \
         change it",
        stored.shards, stored.generation
    );
    Error::new(ErrorKind::Invalid, message)
}

fn mixed_up(stored: &Layout) -> Error {
    let message = format!(
        "this store is the shard {:?}; give each store the name that it was set up with",
        stored.shard
    );
    Error::new(ErrorKind::Invalid, message)
}

fn replaced() -> Error {
    let message = "the store lacks the layout that the other shards have: it was replaced by an \
                   empty store or an old copy; restore it";
    Error::new(ErrorKind::Unusable, message)
}
