//! Commits: a batch is split by shard, and the answers are merged.
//!
//! # Why a repeat completes a batch that some shards have applied
//!
//! Each shard gets its part under the id of the whole batch. A repeat of the identical batch
//! is split in the same way, so a shard that has applied its part repeats its answer, and
//! the others apply theirs. Only an error that is the final answer of every shard that has
//! not applied its part is passed on as such; any other counts as unknown.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::join_all;

use super::{
    Shards,
    incarnations::Vector,
    layout::{superseded, unless_ended},
    routing::{Shard, owner},
};
use crate::{
    batch::{Batch, Change, Committed, Expect, MapBatch, Otherwise},
    error::{Error, ErrorKind, Result},
    incarnation::{Incarnation, Rewound},
    name::{MapName, SHARDED},
    record::Revision,
};

/// The answer of one shard.
type Answer = (usize, Result<Committed>);

/// The common properties of all parts of a batch.
struct Sending<'a> {
    batch: &'a Batch,
    after: Revision,
    seen: Option<Revision>,
    generation: u64,
    /// The incarnations that the writer knows, if it names them.
    known: Option<Vector>,
}

/// # Errors
///
/// `Invalid` for the map of the layout.
pub(super) fn check_not_reserved(map: &MapName) -> Result<()> {
    if map.as_str().split('/').next() != Some(SHARDED) {
        return Ok(());
    }
    let message = "the name `sharded` is reserved for the layout of the shards; use another name";
    Err(Error::new(ErrorKind::Invalid, message).on_map(map))
}

impl Shards {
    pub(super) async fn commit(&self, batch: &Batch) -> Result<Committed> {
        // Nothing was sent before the layout was checked.
        let generation = self.generation().await.map_err(Error::nothing_applied)?;
        let part = match &*batch.maps {
            [] => None,
            [part] => Some(part),
            [first, ..] => return Err(one_map_only().on_map(&first.map)),
        };
        part.map_or(Ok(()), |part| check_not_reserved(&part.map))?;
        let parts = self.split(part);
        if let Some(part) = part.filter(|_| parts.len() > 1) {
            check_divisible(batch, part)?;
        }
        if let Some(part) = part {
            // Nothing of this map was sent before its revisions are known.
            let known = self.know(&part.map).await;
            known.map_err(Error::nothing_applied)?;
        }
        let last = self.list.iter().map(Shard::last);
        let sending = Sending {
            batch,
            // Above the last revision of every shard: the revisions of a map grow, whichever
            // shards have its keys, and all shards of this batch assign the same one, unless
            // another commit comes between.
            after: last.max().unwrap_or_default().max(batch.after),
            seen: part.map_or(Ok(None), |part| self.writers.lock().begin(batch, part))?,
            generation,
            known: part.map_or(Ok(None), |part| self.known_to(part))?,
        };
        let sent = parts
            .into_iter()
            .map(|(n, part)| self.send(n, part, &sending));
        let answers = join_all(sent).await;
        self.merge(&sending, answers)
    }

    /// The parts of the shards. A clear concerns all of them; so does a batch without
    /// changes, which fences the earlier ones, whichever shards they were for.
    fn split(&self, part: Option<&MapBatch>) -> Vec<(usize, Option<MapBatch>)> {
        let Some(part) = part else {
            return (0..self.list.len()).map(|n| (n, None)).collect();
        };
        let mut changes = vec![Vec::new(); self.list.len()];
        for change in &part.changes {
            changes[owner(&self.list, &change.key)].push(change.clone());
        }
        let of_all = part.clear || part.changes.is_empty();
        let parts = changes.into_iter().enumerate();
        let parts = parts.filter(|(_, changes)| of_all || !changes.is_empty());
        let part = |changes| MapBatch::new(part.map.clone(), changes).clearing(part.clear);
        parts.map(|(n, changes)| (n, Some(part(changes)))).collect()
    }

    /// # Errors
    ///
    /// `Rewound` if the writer names an incarnation that these shards do not have.
    fn known_to(&self, part: &MapBatch) -> Result<Option<Vector>> {
        let Some(expected) = part.incarnation else {
            return Ok(None);
        };
        let mut incarnations = self.incarnations.lock();
        if let Some(known) = incarnations.vector(expected) {
            return Ok(Some(known));
        }
        let latest = incarnations.latest().clone();
        let states = Rewound::new(Some(expected), incarnations.combined(&latest));
        Err(Error::store_rewound(states).on_map(&part.map))
    }

    async fn send(&self, n: usize, part: Option<MapBatch>, sending: &Sending<'_>) -> Answer {
        let (shard, batch) = (&self.list[n], sending.batch);
        let whole = batch.maps.first();
        let part = part.map(|part| {
            let claimed = whole.and_then(|whole| whole.acknowledged);
            let claimed = match self.list.len() {
                1 => claimed,
                _ => claimed.and_then(|last| self.writers.lock().claim(n, last, batch.at)),
            };
            let incarnation = sending.known.as_ref().and_then(|known| known[n]);
            part.in_incarnation(incarnation)
                .after_acknowledged(claimed)
                .having_seen(sending.seen)
        });
        // The layout first: its condition fails before those of the part.
        let layout = vec![unless_ended(sending.generation)];
        let layout = MapBatch::new(self.layout.clone(), layout);
        let sent = Batch {
            after: sending.after,
            maps: [Some(layout), part].into_iter().flatten().collect(),
            divisible: false,
            ..batch.clone()
        };
        let answer = shard.provider.commit(&sent).await;
        match &answer {
            // Noted at once: the other shards may never answer.
            Ok(committed) => {
                shard.saw(committed.revision.unwrap_or_default());
                self.writers.lock().answered(n, batch, committed.revision);
                self.incarnations.lock().saw(n, committed.incarnation);
            }
            Err(error) => {
                let found = error.rewound().and_then(|states| states.found);
                self.incarnations.lock().saw(n, found);
            }
        }
        (
            n,
            answer.map_err(|error| self.translated(n, error, sending)),
        )
    }

    /// The error, as that of the whole layer.
    fn translated(&self, n: usize, error: Error, sending: &Sending<'_>) -> Error {
        let error = match error.map() {
            Some(map) if map == self.layout.as_str() => match error.kind() {
                ErrorKind::Conflict => superseded(sending.generation),
                _ => error,
            },
            _ => error,
        };
        let error = match error.rewound().copied() {
            Some(mut states) => {
                let expected = sending.batch.maps.first().and_then(|part| part.incarnation);
                states.expected = expected.or(states.expected);
                states.found = self.combined_with(sending, [(n, states.found)]);
                error.with_rewound(states)
            }
            None => error,
        };
        self.list[n].blame(error)
    }

    /// The incarnation that the writer knows, or else the latest one, with these answers.
    fn combined_with(
        &self,
        sending: &Sending<'_>,
        found: impl IntoIterator<Item = (usize, Option<Incarnation>)>,
    ) -> Option<Incarnation> {
        let mut incarnations = self.incarnations.lock();
        let known = sending.known.clone();
        let mut vector = known.unwrap_or_else(|| incarnations.latest().clone());
        for (n, found) in found {
            vector[n] = found.or(vector[n]);
        }
        incarnations.combined(&vector)
    }

    fn merge(&self, sending: &Sending<'_>, answers: Vec<Answer>) -> Result<Committed> {
        let (mut applied, mut failed) = (Vec::new(), Vec::new());
        for (n, answer) in answers {
            match answer {
                Ok(committed) => applied.push((n, committed)),
                Err(error) => failed.push(error),
            }
        }
        if let Some(error) = worst(failed) {
            let part = sending.batch.maps.first();
            let writes = part.is_some_and(|part| part.clear || !part.changes.is_empty());
            let in_part = writes && !applied.is_empty();
            return Err(if in_part {
                error.outcome_unknown()
            } else {
                error
            });
        }
        let found = applied
            .iter()
            .map(|(n, committed)| (*n, committed.incarnation));
        let incarnation = self.combined_with(sending, found);
        let revisions = applied.iter().map(|(_, committed)| committed.revision);
        let mut answer = Committed::default().with_incarnation(incarnation);
        answer.revision = common(revisions);
        answer.skipped = applied.into_iter().flat_map(|(_, c)| c.skipped).collect();
        if let [part] = &*sending.batch.maps {
            let order = part.changes.iter().map(|change| &change.key).zip(0..);
            let order: HashMap<&Arc<str>, usize> = match answer.skipped.len() {
                0 | 1 => HashMap::new(),
                _ => order.collect(),
            };
            answer
                .skipped
                .sort_by_key(|skipped| order.get(&skipped.key).copied());
        }
        Ok(answer)
    }
}

/// The revision that all shards assigned; `None` if they assigned different ones.
fn common(mut revisions: impl Iterator<Item = Option<Revision>>) -> Option<Revision> {
    let first = revisions.next()??;
    revisions
        .all(|revision| revision == Some(first))
        .then_some(first)
}

/// The error that decides how the batch continues: an unknown outcome, which only a repeat
/// settles; else one of a whole shard; else the refusal of single changes, with all that
/// are refused.
fn worst(mut failed: Vec<Error>) -> Option<Error> {
    let unknown = failed.iter().position(Error::may_have_applied);
    let of_a_shard = || failed.iter().position(|e| e.kind() != ErrorKind::Refused);
    if let Some(decisive) = unknown.or_else(of_a_shard) {
        return Some(failed.swap_remove(decisive));
    }
    let keys: Vec<_> = failed.iter().flat_map(Error::keys).cloned().collect();
    failed.into_iter().next().map(|error| error.on_keys(keys))
}

/// # Errors
///
/// `Unsupported` if the changes must be applied together.
fn check_divisible(batch: &Batch, part: &MapBatch) -> Result<()> {
    let is_bound = |change: &Change| {
        let must = change.expect != Expect::Any && change.otherwise == Otherwise::Fail;
        must || change.group.is_some()
    };
    let is_empty = part.changes.is_empty() && !part.clear;
    if is_empty || batch.divisible && !part.changes.iter().any(is_bound) {
        return Ok(());
    }
    let message = "the keys of this atomic commit are on several shards, and a commit is atomic \
                   within a shard; nothing was written: commit to one key after the other, or \
                   keep what belongs together in one entry";
    let keys = part.changes.iter().map(|change| change.key.clone());
    Err(Error::new(ErrorKind::Unsupported, message)
        .on_map(&part.map)
        .on_keys(keys))
}

fn one_map_only() -> Error {
    let message = "shards commit to one map at a time; nothing was written: commit to one map \
                   after the other";
    Error::new(ErrorKind::Unsupported, message)
}
