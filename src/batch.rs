//! Batches: the absolute changes that a map commits to a provider.

use std::{sync::Arc, time::SystemTime};

use crate::{
    incarnation::Incarnation,
    name::MapName,
    record::{Cause, Payload, Record, Revision},
};

mod committed;
mod id;

pub use committed::{Committed, Skipped};
pub use id::{Acknowledged, BatchId, Turn};

pub use crate::writer_id::WriterId;

/// Changes to one or several maps, committed as a whole or not at all.
///
/// A clone is O(1): it shares the changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// Identifies the batch.
    pub id: BatchId,
    /// The highest revision of these maps that the writer has seen. The revision of the
    /// commit exceeds it, even if the store was restored from an old backup meanwhile.
    pub after: Revision,
    /// When the batch was made, by the writer's clock. It is the `updated_at` of every
    /// put without a [time of its own](Change::written_at).
    pub at: SystemTime,
    /// The changes, one item per map; no map occurs twice.
    pub maps: Arc<[MapBatch]>,
    /// The changes are independent (write-behind, not an atomic commit): a layer over
    /// [several stores](crate::Sharded) may apply the batch store by store.
    pub divisible: bool,
}

impl Batch {
    /// Creates a batch of these changes.
    pub fn new(
        id: BatchId,
        after: Revision,
        at: SystemTime,
        maps: impl Into<Arc<[MapBatch]>>,
    ) -> Self {
        let (maps, divisible) = (maps.into(), false);
        Self {
            id,
            after,
            at,
            maps,
            divisible,
        }
    }

    /// Sets whether the batch may be [applied in parts](Self::divisible).
    #[must_use]
    pub fn divisible(mut self, divisible: bool) -> Self {
        self.divisible = divisible;
        self
    }

    /// Returns the revision for this batch in a store whose last revision is `last`: above
    /// `last` and [`after`](Self::after), and not below the milliseconds since 1970. So a
    /// store that was restored from a backup does not assign a revision twice.
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
    /// Whether the map is cleared first. Conditions are then checked on the empty map.
    pub clear: bool,
    /// The changes; no key occurs twice. They are independent of each other:
    /// a provider may apply them in any order.
    pub changes: Vec<Change>,
    /// The incarnation of the store that the writer of this map knows; `None` accepts any.
    /// A store in another incarnation refuses the batch as
    /// [`Rewound`](crate::ErrorKind::Rewound).
    pub incarnation: Option<Incarnation>,
    /// The last commit that was acknowledged to the writer of this map; `None` if there
    /// was none. If the store does not remember that commit, it has lost commits: it
    /// refuses the batch as [`Rewound`](crate::ErrorKind::Rewound) and takes a new
    /// incarnation.
    ///
    /// In a batch of several maps, each part names the writer of its own map, and
    /// [`Batch::id`] that of one of them.
    pub acknowledged: Option<Acknowledged>,
    /// The revision up to which the writer has seen all commits to this map, because it
    /// loaded the map at that revision or later; `None` if unknown. A store that has
    /// [dropped](crate::Provider::drop_map) the map since then refuses the batch as
    /// [`Rewound`](crate::ErrorKind::Rewound).
    pub seen: Option<Revision>,
}

impl MapBatch {
    /// Creates the part of a batch with these changes to that map.
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

    /// Sets the revision up to which the writer has [seen](Self::seen) the map.
    #[must_use]
    pub fn having_seen(mut self, seen: Option<Revision>) -> Self {
        self.seen = seen;
        self
    }

    /// Sets the [incarnation](Self::incarnation) that the store must be in.
    #[must_use]
    pub fn in_incarnation(mut self, incarnation: Option<Incarnation>) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// Sets the last [acknowledged](Self::acknowledged) commit, which the store must
    /// remember.
    #[must_use]
    pub fn after_acknowledged(mut self, acknowledged: Option<Acknowledged>) -> Self {
        self.acknowledged = acknowledged;
        self
    }

    /// Sets whether the map is cleared before these changes.
    #[must_use]
    pub fn clearing(mut self, clear: bool) -> Self {
        self.clear = clear;
        self
    }
}

/// A change of one key. It is absolute: it contains the new state of the entry, not a
/// difference, so applying it twice has the effect of applying it once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The key: any UTF-8 of any length, including the empty string.
    pub key: Arc<str>,
    /// The new state of the entry.
    pub op: Op,
    /// The condition under which the change is applied.
    pub expect: Expect,
    /// What to do if the condition does not hold.
    pub otherwise: Otherwise,
    /// When the value was written, if before the batch was made. A put stores it as
    /// `updated_at`, instead of [`Batch::at`].
    pub written_at: Option<SystemTime>,
    /// The cause of a deletion, which the store keeps in the tombstone.
    pub cause: Cause,
    /// The group that the change belongs to, within the batch and across its maps. If a
    /// condition with [`Otherwise::Skip`] fails in the group, all changes of the group are
    /// skipped. The numbers have no meaning beyond the batch.
    pub group: Option<u32>,
    /// A hint: the writer knows of no stored entry with this key, so an insert is
    /// probably faster than an update. Another process may have stored one since.
    pub likely_new: bool,
}

impl Change {
    /// Creates a put: the key has this value, whatever it had before.
    pub fn put(key: impl Into<Arc<str>>, payload: Payload, expires_at: Option<SystemTime>) -> Self {
        Self::new(
            key.into(),
            Op::Put {
                payload,
                expires_at,
            },
        )
    }

    /// Creates a touch: the entry keeps its value and expires at another time. Does
    /// nothing if there is no such entry.
    pub fn touch(key: impl Into<Arc<str>>, expires_at: Option<SystemTime>) -> Self {
        Self::new(key.into(), Op::Touch { expires_at })
    }

    /// Creates a deletion of the key.
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

    /// Sets when the value was [written](Self::written_at).
    #[must_use]
    pub fn written_at(mut self, at: Option<SystemTime>) -> Self {
        self.written_at = at;
        self
    }

    /// Sets the [cause](Self::cause) of the deletion.
    #[must_use]
    pub fn because(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// Sets the [group](Self::group) of the change.
    #[must_use]
    pub fn in_group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// Sets the hint [`likely_new`](Self::likely_new).
    #[must_use]
    pub fn likely_new(mut self, likely: bool) -> Self {
        self.likely_new = likely;
        self
    }

    /// Sets the condition of the change.
    #[must_use]
    pub fn expect(mut self, expect: Expect, otherwise: Otherwise) -> Self {
        self.expect = expect;
        self.otherwise = otherwise;
        self
    }

    /// Returns the entry after this change, in a batch of that [time](Batch::at) and
    /// revision; `None` if the entry is then gone. `stored` looks up the entry before the
    /// change, and is called only if needed.
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

    /// The approximate size of the change in a batch, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let payload = match &self.op {
            Op::Put { payload, .. } => payload.bytes.len(),
            Op::Touch { .. } | Op::Delete => 0,
        };
        self.key.len() + payload
    }
}

/// The new state of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The entry has this value.
    Put {
        /// The value.
        payload: Payload,
        /// When the entry expires; `None` for never.
        expires_at: Option<SystemTime>,
    },
    /// The entry keeps its value and its `updated_at`, gets the revision of the commit,
    /// and expires at another time.
    Touch {
        /// When the entry expires; `None` for never.
        expires_at: Option<SystemTime>,
    },
    /// The entry is deleted.
    Delete,
}

/// The condition of a change, checked on the stored entry before the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// No condition: the last commit wins.
    #[default]
    Any,
    /// The entry does not exist, or has expired.
    Absent,
    /// The entry exists and has not expired.
    Present,
    /// The entry was last written by the commit of this revision, expired or
    /// not.
    At(Revision),
}

impl Expect {
    /// Whether the condition holds for a stored entry of this revision and expiry (`None`
    /// if there is no entry) at the [time](Batch::at) of the batch.
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

/// The treatment of a change whose condition does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Otherwise {
    /// The whole batch fails as a [`Conflict`](crate::ErrorKind::Conflict)
    /// that carries the key and the record found.
    #[default]
    Fail,
    /// The change and all others of its [group](Change::group) are left out and listed as
    /// [`Skipped`]. The rest of the batch is applied.
    Skip,
}
