//! What goes down to a provider: batches of absolute changes.

use std::{sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    incarnation::Incarnation,
    name::MapName,
    record::{Cause, Payload, Record, Revision},
};

mod id;

pub use id::{Acknowledged, BatchId, Turn};

pub use crate::writer_id::WriterId;

/// Changes to one or several maps, committed whole or not at all.
///
/// A clone costs nothing: the changes are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// What tells it from every other batch.
    pub id: BatchId,
    /// The highest revision the writer has seen of these maps; what the commit
    /// is given exceeds it, also when the store was restored from an old
    /// backup meanwhile.
    pub after: Revision,
    /// When the batch was made, by the writer's clock: the `updated_at` of
    /// what it puts, but for what [says otherwise](Change::written_at).
    pub at: SystemTime,
    /// The changes, a map an item; no map occurs twice.
    pub maps: Arc<[MapBatch]>,
}

impl Batch {
    /// A batch of these changes.
    pub fn new(
        id: BatchId,
        after: Revision,
        at: SystemTime,
        maps: impl Into<Arc<[MapBatch]>>,
    ) -> Self {
        Self {
            id,
            after,
            at,
            maps: maps.into(),
        }
    }

    /// The revision for this batch in a store whose last one is `last`: above
    /// that, above [`after`](Self::after), and not below the milliseconds since
    /// 1970, so that a store that was restored from a backup does not give out
    /// again what it gave out before.
    pub fn revision_after(&self, last: Revision) -> Revision {
        let since_1970 = self.at.duration_since(SystemTime::UNIX_EPOCH);
        let floor = since_1970.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(0));
        let highest = last.max(self.after).get();
        Revision::new(floor.max(highest.saturating_add(1)))
    }
}

/// The part of a batch that concerns one map.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapBatch {
    /// The map.
    pub map: MapName,
    /// Whether everything stored is deleted first. Conditions look at the
    /// map as it is then: empty.
    pub clear: bool,
    /// The changes; no key occurs twice. They are independent of each other:
    /// a provider may apply them in any order.
    pub changes: Vec<Change>,
    /// The incarnation in which the writer of this map knows the store; `None`
    /// if it knows none, and then any will do. A store in another one refuses
    /// the batch as [`Rewound`](crate::ErrorKind::Rewound).
    pub incarnation: Option<Incarnation>,
    /// The last commit that was acknowledged to the writer of this map; `None`
    /// if there was none. A store that does not remember it has lost commits:
    /// it refuses the batch as [`Rewound`](crate::ErrorKind::Rewound), and gets
    /// a new incarnation.
    ///
    /// In a batch of several maps each part names the writer of its own map,
    /// while [`Batch::id`] is that of one of them.
    pub acknowledged: Option<Acknowledged>,
    /// The revision up to which the writer of this map has seen all commits to it:
    /// it loaded the map as it was then, or later. `None` if it does not say. A store
    /// that has [dropped](crate::Provider::drop_map) the map since then refuses the
    /// batch as [`Rewound`](crate::ErrorKind::Rewound).
    pub seen: Option<Revision>,
}

impl MapBatch {
    /// These changes to that map.
    pub fn new(map: MapName, changes: Vec<Change>) -> Self {
        Self {
            map,
            clear: false,
            changes,
            incarnation: None,
            acknowledged: None,
            seen: None,
        }
    }

    /// The same changes, of a writer that has seen the map up to this revision.
    #[must_use]
    pub fn having_seen(mut self, seen: Option<Revision>) -> Self {
        self.seen = seen;
        self
    }

    /// The same changes, for a store in this incarnation only.
    #[must_use]
    pub fn in_incarnation(mut self, incarnation: Option<Incarnation>) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// The same changes, for a store that remembers this commit only.
    #[must_use]
    pub fn after_acknowledged(mut self, acknowledged: Option<Acknowledged>) -> Self {
        self.acknowledged = acknowledged;
        self
    }

    /// The same changes, after everything stored was deleted.
    #[must_use]
    pub fn clearing(mut self, clear: bool) -> Self {
        self.clear = clear;
        self
    }
}

/// What happens to one key. It says what the entry becomes, never how it
/// differs from what it was: applied twice, it is as if applied once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The key: any UTF-8, also empty, of any length.
    pub key: Arc<str>,
    /// What the entry becomes.
    pub op: Op,
    /// On what condition.
    pub expect: Expect,
    /// What if the condition does not hold.
    pub otherwise: Otherwise,
    /// When the value was written, if that matters and was before the batch was
    /// made: the `updated_at` of what is put, instead of [`Batch::at`].
    pub written_at: Option<SystemTime>,
    /// Why the key is deleted, if it is; the store keeps it with the tombstone.
    pub cause: Cause,
    /// The group of the batch that the change belongs to, also across its maps: if
    /// a condition of the group that says [`Otherwise::Skip`] does not hold, all
    /// changes of the group are left out. The numbers mean nothing beyond the batch.
    pub group: Option<u32>,
    /// Whether the writer knows of nothing that is stored under the key. That
    /// is a hint, by which a provider may choose the faster way to write it;
    /// another process may have stored something since.
    pub likely_new: bool,
}

impl Change {
    /// The key holds this value from now on, whatever it held before.
    pub fn put(key: impl Into<Arc<str>>, payload: Payload, expires_at: Option<SystemTime>) -> Self {
        Self::new(
            key.into(),
            Op::Put {
                payload,
                expires_at,
            },
        )
    }

    /// The entry keeps its value and expires at another time. Where there is
    /// no such entry, nothing happens.
    pub fn touch(key: impl Into<Arc<str>>, expires_at: Option<SystemTime>) -> Self {
        Self::new(key.into(), Op::Touch { expires_at })
    }

    /// The key holds nothing from now on.
    pub fn delete(key: impl Into<Arc<str>>) -> Self {
        Self::new(key.into(), Op::Delete)
    }

    pub(crate) fn new(key: Arc<str>, op: Op) -> Self {
        Self {
            key,
            op,
            expect: Expect::Any,
            otherwise: Otherwise::Fail,
            written_at: None,
            cause: Cause::Removed,
            group: None,
            likely_new: false,
        }
    }

    /// The same change, of a value that was written at that time.
    #[must_use]
    pub fn written_at(mut self, at: Option<SystemTime>) -> Self {
        self.written_at = at;
        self
    }

    /// The same deletion, for that cause.
    #[must_use]
    pub fn because(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// The same change, tied to the others of this group of the batch.
    #[must_use]
    pub fn in_group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// The same change, with the hint that nothing is known to be stored there.
    #[must_use]
    pub fn likely_new(mut self, likely: bool) -> Self {
        self.likely_new = likely;
        self
    }

    /// The same change, on this condition.
    #[must_use]
    pub fn expect(mut self, expect: Expect, otherwise: Otherwise) -> Self {
        self.expect = expect;
        self.otherwise = otherwise;
        self
    }

    /// The entry after this change, in a batch of that [time](Batch::at) that is
    /// committed as that revision; `None` if there is none then. `stored` looks up
    /// the entry before it, if it matters.
    pub fn apply(
        &self,
        stored: impl FnOnce() -> Option<Record>,
        at: SystemTime,
        revision: Revision,
    ) -> Option<Record> {
        match &self.op {
            Op::Put {
                payload,
                expires_at,
            } => Some(
                Record::new(self.key.clone(), Some(payload.clone()), revision)
                    .with_expires_at(*expires_at)
                    .with_updated_at(Some(self.written_at.unwrap_or(at))),
            ),
            Op::Touch { expires_at } => {
                let mut record = stored()?.with_expires_at(*expires_at);
                record.revision = revision;
                Some(record)
            }
            Op::Delete => None,
        }
    }

    /// About how many bytes it takes in a batch.
    pub(crate) fn weight(&self) -> usize {
        let payload = match &self.op {
            Op::Put { payload, .. } => payload.bytes.len(),
            Op::Touch { .. } | Op::Delete => 0,
        };
        self.key.len() + payload
    }
}

/// What an entry becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// It holds this value.
    Put {
        /// The value.
        payload: Payload,
        /// When it is gone, if it ever is.
        expires_at: Option<SystemTime>,
    },
    /// It keeps its value, and expires at another time. The entry gets the
    /// revision of the commit and keeps its `updated_at`.
    Touch {
        /// When it is gone, if it ever is.
        expires_at: Option<SystemTime>,
    },
    /// It is gone.
    Delete,
}

/// The condition of a change, on what the store holds before the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// None: the last commit wins.
    #[default]
    Any,
    /// There is no such entry, or it has expired.
    Absent,
    /// There is such an entry, and it has not expired.
    Present,
    /// The entry was last written by the commit of this revision, expired or
    /// not.
    At(Revision),
}

impl Expect {
    /// Whether the condition holds, given the revision and the expiry of the
    /// stored entry, if there is one, and the [time](Batch::at) of the batch.
    pub fn holds(self, stored: Option<(Revision, Option<SystemTime>)>, at: SystemTime) -> bool {
        let live = stored.is_some_and(|(_, expires_at)| expires_at.is_none_or(|end| at < end));
        match self {
            Self::Any => true,
            Self::Absent => !live,
            Self::Present => live,
            Self::At(expected) => stored.is_some_and(|(found, _)| found == expected),
        }
    }
}

/// What becomes of a change whose condition does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Otherwise {
    /// The whole batch fails as a [`Conflict`](crate::ErrorKind::Conflict)
    /// that carries the key and the record found.
    #[default]
    Fail,
    /// The change is left out and listed as [`Skipped`], and with it all others of
    /// its [group](Change::group). The rest of the batch is applied.
    Skip,
}

/// The answer to a batch that was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Committed {
    /// The revision of everything it wrote; `None` if a layer accepted it
    /// ahead of the store.
    pub revision: Option<Revision>,
    /// The changes that were left out because a condition did not hold, their own
    /// or another one of their [group](Change::group); in the order of the batch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
    /// The incarnation of the store; `None` if it keeps none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
}

impl Committed {
    /// Applied whole, as this revision.
    pub fn at(revision: Revision) -> Self {
        Self {
            revision: Some(revision),
            skipped: Vec::new(),
            incarnation: None,
        }
    }

    /// The same answer, of a store in this incarnation.
    #[must_use]
    pub fn with_incarnation(mut self, incarnation: Option<Incarnation>) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// The same answer, with the changes that were left out.
    #[must_use]
    pub fn with_skipped(mut self, skipped: Vec<Skipped>) -> Self {
        self.skipped = skipped;
        self
    }
}

/// A change that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Skipped {
    /// Its map.
    pub map: MapName,
    /// Its key.
    pub key: Arc<str>,
    /// What the store holds instead.
    pub found: Option<Record>,
}

impl Skipped {
    /// A change of that key was left out because of what was found.
    pub fn new(map: MapName, key: Arc<str>, found: Option<Record>) -> Self {
        Self { map, key, found }
    }
}
