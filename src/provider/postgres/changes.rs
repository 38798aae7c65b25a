//! The changes of a batch to one map, in the order of their keys.

use std::{sync::Arc, time::SystemTime};

use super::{
    keys::StoredKey,
    values::{Moment, SentValue, ValueType, schema_column},
};
use crate::{
    batch::{Change, Op},
    provider::sql::key_order::sort_by_key,
    record::{Cause, Payload},
    writer_id::WriterId,
};

/// The maximum number of rows that one statement puts.
const MAX_ROWS: usize = 10_000;

/// About how many bytes of keys and values one statement puts, unless a single row is
/// larger.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The writer, time and revision of all changes of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp<'a> {
    pub(super) writer: WriterId,
    pub(super) at: SystemTime,
    /// An SQL expression. If it is `NULL`, nothing is changed.
    pub(super) revision: &'a str,
}

/// Changes by kind. Each list has each key once, ordered by its bytes. All writers lock
/// the rows of a table in this order, so they cannot deadlock.
#[derive(Debug, Default)]
pub(super) struct Changes<'a> {
    pub(super) puts: Vec<Put<'a>>,
    pub(super) touches: Vec<Touch<'a>>,
    pub(super) deletes: Vec<Delete<'a>>,
}

#[derive(Debug)]
pub(super) struct Put<'a> {
    pub(super) key: StoredKey<'a>,
    pub(super) of: &'a Arc<str>,
    pub(super) payload: &'a Payload,
    pub(super) expires_at: Option<Moment>,
    /// If it differs from that of the batch.
    pub(super) written_at: Option<Moment>,
    pub(super) likely_new: bool,
    /// A condition found no row, in a table to which another program may add one.
    pub(super) absent: bool,
}

#[derive(Debug)]
pub(super) struct Touch<'a> {
    pub(super) key: StoredKey<'a>,
    pub(super) expires_at: Option<Moment>,
}

#[derive(Debug)]
pub(super) struct Delete<'a> {
    pub(super) key: StoredKey<'a>,
    pub(super) cause: Cause,
}

impl<'a> Put<'a> {
    pub(super) fn value(&self, values: ValueType) -> SentValue<'a> {
        SentValue(values, self.payload)
    }

    pub(super) fn schema(&self) -> i64 {
        schema_column(self.payload)
    }

    /// The size of key and value as they are sent.
    pub(super) fn sent_len(&self, values: ValueType) -> usize {
        self.of.len() + values.sent_len(self.payload)
    }

    /// When the value was written, in a batch of that time.
    pub(super) fn at(&self, batch: SystemTime) -> Moment {
        self.written_at.unwrap_or_else(|| Moment::new(batch))
    }
}

impl<'a> Changes<'a> {
    pub(super) fn new(changes: impl Iterator<Item = &'a Change>) -> Self {
        let mut changes: Vec<_> = changes.collect();
        sort_by_key(&mut changes);
        // If a key occurs twice, against the contract, the last change counts.
        changes.dedup_by(|later, earlier| {
            let twice = later.key == earlier.key;
            if twice {
                *earlier = *later;
            }
            twice
        });
        let mut all = Self::default();
        for change in changes {
            all.add(change);
        }
        all
    }

    fn add(&mut self, change: &'a Change) {
        let key = StoredKey::new(&change.key);
        match &change.op {
            Op::Put {
                payload,
                expires_at,
            } => self.puts.push(Put {
                key,
                of: &change.key,
                payload,
                expires_at: expires_at.map(Moment::new),
                written_at: change.written_at.map(Moment::new),
                likely_new: change.likely_new,
                absent: false,
            }),
            Op::Touch { expires_at } => self.touches.push(Touch {
                key,
                expires_at: expires_at.map(Moment::new),
            }),
            Op::Delete => self.deletes.push(Delete {
                key,
                cause: change.cause,
            }),
        }
    }

    /// Turns the puts of these keys into inserts, at the end of the list.
    pub(super) fn expect_absent(&mut self, is_absent: impl Fn(&str) -> bool) {
        for put in &mut self.puts {
            put.absent = is_absent(put.of);
        }
        self.puts.sort_by_key(|put| put.absent);
    }

    /// The puts in chunks, each for one statement.
    pub(super) fn chunks(&self, values: ValueType) -> impl Iterator<Item = &[Put<'a>]> {
        let mut rest = self.puts.as_slice();
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let absent = rest.first().is_some_and(|put| put.absent);
            let alike = rest.iter().take_while(|put| put.absent == absent);
            let fits = alike.take(MAX_ROWS).take_while(|put| {
                let before = bytes;
                bytes += put.sent_len(values);
                before == 0 || bytes <= MAX_BYTES
            });
            let (chunk, after) = rest.split_at(fits.count());
            rest = after;
            (!chunk.is_empty()).then_some(chunk)
        })
    }
}
