//! The last batches that each shard has acknowledged to each writer.
//!
//! A map claims that its store remembers the last batch that was acknowledged. A shard that
//! had no part in that batch would call this a loss, so each shard is asked for the last
//! batch of the writer that this shard itself has acknowledged.
//!
//! A writer lives in one process, like this record, and it knows the layer by its loads. If
//! the record is missing, no claim is made, and a loss is noticed by the incarnation alone.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use crate::{
    batch::{Acknowledged, Batch, BatchId, MapBatch, WriterId},
    error::{Error, ErrorKind, Result},
    record::Revision,
};

/// Stores forget a writer that has been idle for a day.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// How many writers are kept before idle ones are forgotten.
const MANY: usize = 1_000;

#[derive(Default)]
pub(super) struct Writers(HashMap<WriterId, Writer>);

struct Writer {
    /// The horizon of its last load.
    seen: Option<Revision>,
    /// The highest revision that it knows, from loads and from its commits.
    highest: Revision,
    /// The last batch that each shard has acknowledged.
    answered: HashMap<usize, Answered>,
    used: SystemTime,
}

#[derive(Clone, Copy)]
struct Answered {
    id: BatchId,
    /// By the writer's clock, which stands still while the machine sleeps.
    at: SystemTime,
    /// By the system clock.
    wall: SystemTime,
}

impl Writers {
    /// Notes that a batch is about to be sent, and returns the revision that its writer has
    /// [seen](MapBatch::seen) of every shard.
    ///
    /// # Errors
    ///
    /// `Superseded` if a shard has applied a later batch of the writer. The shards of this
    /// batch may not know of it.
    pub(super) fn begin(&mut self, batch: &Batch, part: &MapBatch) -> Result<Option<Revision>> {
        let writer = self.writer(batch.id.writer);
        if part.acknowledged.is_none() {
            // The writer begins, or its map has resolved a loss: earlier commits are
            // settled and no longer claimed.
            writer
                .answered
                .retain(|_, last| last.id.sequence >= batch.id.sequence);
        }
        let later = |last: &Answered| last.id.sequence > batch.id.sequence;
        if writer.answered.values().any(later) {
            let message = "a later batch of this writer was committed already";
            return Err(Error::new(ErrorKind::Superseded, message).on_map(&part.map));
        }
        // Commits of its own raise what it claims to have seen, but they say nothing about
        // the drops that the other shards have made meanwhile. Only a load raises it above
        // them: each shard's drop is above all that the shard had committed before.
        let seen = part.seen.unwrap_or_default();
        if writer.seen.is_none() || seen > writer.highest {
            writer.seen = part.seen;
            writer.highest = writer.highest.max(seen);
        }
        Ok(part.seen.and(writer.seen))
    }

    fn writer(&mut self, id: WriterId) -> &mut Writer {
        let now = SystemTime::now();
        if self.0.len() >= MANY && !self.0.contains_key(&id) {
            let idle = |writer: &Writer| now.duration_since(writer.used).unwrap_or_default();
            self.0.retain(|_, writer| idle(writer) < FORGOTTEN);
        }
        let writer = self.0.entry(id).or_insert_with(|| Writer {
            seen: None,
            highest: Revision::ZERO,
            answered: HashMap::new(),
            used: now,
        });
        writer.used = now;
        writer
    }

    /// Records that a shard has applied its part of a batch.
    pub(super) fn answered(&mut self, shard: usize, batch: &Batch, revision: Option<Revision>) {
        let Some(writer) = self.0.get_mut(&batch.id.writer) else {
            return;
        };
        writer.highest = writer.highest.max(revision.unwrap_or_default());
        let answered = Answered {
            id: batch.id,
            at: batch.at,
            wall: SystemTime::now(),
        };
        let last = writer.answered.entry(shard).or_insert(answered);
        if last.id.sequence <= batch.id.sequence {
            *last = answered;
        }
    }

    /// The claim for one shard, in place of that for the whole store.
    pub(super) fn claim(
        &self,
        shard: usize,
        claimed: Acknowledged,
        now: SystemTime,
    ) -> Option<Acknowledged> {
        let last = self.0.get(&claimed.id.writer)?.answered.get(&shard)?;
        let past = now.duration_since(last.at).unwrap_or_default();
        let age = past.max(last.wall.elapsed().unwrap_or_default());
        let at = now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        Some(Acknowledged::new(last.id, at))
    }
}
