//! Reports of a map about its saves: failures, conflicts, health, statistics.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    error::{Error, ErrorKind},
    incarnation::Rewound,
    name::MapName,
    record::{Record, Revision},
};

/// The maximum number of keys that a [`SaveFailure`] names.
const MAX_KEYS_NAMED: usize = 10;

/// One failed attempt to save, sent by [`failures`](crate::Map::failures).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SaveFailure {
    /// The map.
    pub map: MapName,
    /// The attempted operation.
    pub operation: Operation,
    /// The number of this attempt; the first is 1.
    pub attempt: u32,
    /// The maximum number of attempts.
    pub max_attempts: u32,
    /// Whether this was the last attempt. It is true once per outage, when the map
    /// turns [`Down`](Health::Down), and for refused changes. The changes stay
    /// pending, or, if refused, in memory. It is never true for a
    /// [probe](Operation::Probe).
    pub is_final: bool,
    /// The keys concerned.
    pub keys: KeySample,
    /// The error of this attempt.
    pub error: Error,
}

/// The operation that a [`SaveFailure`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Committing a batch.
    Commit,
    /// Checking whether a store that is [down](Health::Down) works again.
    Probe,
    /// Encoding a value as JSON.
    Encode,
    /// Copying an unreadable record aside before its key is overwritten.
    SetAside,
    /// Merging a value with the value that another process has stored.
    Merge,
}

/// A change that conflicted with another process's write, sent by
/// [`conflicts`](crate::Map::conflicts).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// The map.
    pub map: MapName,
    /// The key.
    pub key: Arc<str>,
    /// The revision that the change was based on; `None` if the map knew of no
    /// stored entry.
    pub mine: Option<Revision>,
    /// The revision in the store; `None` if the store has no such entry.
    pub theirs: Option<Revision>,
    /// How the conflict was resolved.
    pub resolution: Resolution,
}

/// How a [`Conflict`] was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resolution {
    /// The map now holds the stored value. Its own change is dropped, and a caller
    /// that waits for it gets an error.
    StoreWon,
    /// The map keeps its own value and commits it again, because the store has no
    /// value to merge it with.
    MapWon,
    /// The map now holds the merged value and commits it next.
    Merged,
    /// The merge failed, and the change is [refused](crate::Map::refused).
    Refused,
}

/// The number of keys, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySample {
    /// The number of keys.
    pub count: usize,
    /// The first keys, at most ten.
    pub first: Vec<Arc<str>>,
}

impl KeySample {
    /// Counts the keys and keeps the first ten.
    pub(crate) fn of<'a>(keys: impl IntoIterator<Item = &'a Arc<str>>) -> Self {
        let mut sample = Self::default();
        for key in keys {
            sample.count += 1;
            if sample.first.len() < MAX_KEYS_NAMED {
                sample.first.push(key.clone());
            }
        }
        sample
    }
}

/// Whether a map's changes reach its store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Health {
    /// Changes reach the store, as far as the map knows.
    #[default]
    Healthy,
    /// The store is down: all attempts of the [retry policy](crate::RetryPolicy)
    /// have failed. Changes stay pending, and the map probes the store until it
    /// works again.
    #[non_exhaustive]
    Down {
        /// The time of the last of those attempts, by the map's clock.
        since: SystemTime,
        /// The error of the latest attempt. Watchers are notified when its
        /// [kind](Error::kind) changes.
        error: Error,
    },
    /// The store is down, and the entries were loaded from a copy of it that may lag
    /// behind, such as the standby of a [`Failover`](crate::Failover). Changes stay
    /// pending, and the map probes the store. Once the store works again, the map commits
    /// what is pending, [reloads](crate::Map::reload) itself, and is healthy.
    #[non_exhaustive]
    Degraded {
        /// When the entries were loaded, by the map's clock.
        since: SystemTime,
        /// The time up to which the copy is known to have all commits.
        copied_at: SystemTime,
        /// The error that saves return until the store works again.
        error: Error,
    },
    /// The map's background task has ended: the map was closed, its runtime has
    /// shut down, or its last handle was dropped. No change reaches the store any
    /// more.
    #[non_exhaustive]
    Ended {
        /// The error that saves return from now on; its kind is
        /// [`ErrorKind::Closed`].
        error: Error,
    },
    /// The store has lost commits that it had acknowledged, because it was replaced
    /// by an older copy or by an empty store. The map writes nothing, and changes
    /// stay pending, until the store is restored or
    /// [`resolve_rewind`](crate::Map::resolve_rewind) is called. Reads keep
    /// working.
    #[non_exhaustive]
    Rewound {
        /// When the map noticed, by its clock.
        since: SystemTime,
        /// The expected and the found state of the store.
        store: Rewound,
        /// The error that waiting saves return; its message says what to do.
        error: Error,
    },
}

impl Health {
    /// Whether changes reach the store, as far as the map knows.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy)
    }

    /// The kind of the error, unless the map is healthy.
    pub fn kind(&self) -> Option<ErrorKind> {
        self.error().map(Error::kind)
    }

    /// The error, unless the map is healthy.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Healthy => None,
            Self::Down { error, .. }
            | Self::Degraded { error, .. }
            | Self::Ended { error }
            | Self::Rewound { error, .. } => Some(error),
        }
    }

    /// When the store went down, or was found rewound, or when the entries were loaded
    /// from a copy; `None` in the other states.
    pub fn since(&self) -> Option<SystemTime> {
        match self {
            Self::Healthy | Self::Ended { .. } => None,
            Self::Down { since, .. }
            | Self::Degraded { since, .. }
            | Self::Rewound { since, .. } => Some(*since),
        }
    }

    /// Records a failed attempt. Returns whether that changes the health: the map
    /// was healthy before, or the kind of the error is different. A map with the entries
    /// of a copy stays degraded.
    pub(crate) fn fail(&mut self, now: SystemTime, error: Error) -> bool {
        let (since, is_change) = match self {
            Self::Down { since, error: last }
            | Self::Degraded {
                since, error: last, ..
            }
            | Self::Rewound {
                since, error: last, ..
            } => (*since, last.kind() != error.kind()),
            Self::Healthy | Self::Ended { .. } => (now, true),
        };
        *self = if error.kind() == ErrorKind::Rewound {
            Self::Rewound {
                since,
                store: error.rewound().copied().unwrap_or_default(),
                error,
            }
        } else if let Self::Degraded { copied_at, .. } = *self {
            Self::Degraded {
                since,
                copied_at,
                error,
            }
        } else {
            Self::Down { since, error }
        };
        is_change
    }
}

/// A change that the store or the codec rejects for good.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefusedChange {
    /// The key.
    pub key: Arc<str>,
    /// The reason.
    pub error: Error,
}

impl RefusedChange {
    pub(crate) fn new(key: Arc<str>, error: Error) -> Self {
        Self { key, error }
    }
}

/// A stored record that does not decode.
///
/// Its bytes stay in the store. When its key is overwritten, they are first copied
/// to the map `<map>/unreadable` of the same provider (`name.nested("unreadable")`),
/// under the key `<revision>:<key>`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnreadableRecord {
    /// The stored record.
    pub record: Record,
    /// The error of the decoder.
    pub error: Error,
    /// Whether the record was copied aside because its key was overwritten.
    pub set_aside: bool,
}

impl UnreadableRecord {
    pub(crate) fn new(record: Record, error: Error) -> Self {
        Self {
            record,
            error,
            set_aside: false,
        }
    }
}

/// Statistics of a map. The fields are read one after the other, so they are not a
/// consistent snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The number of keys that were changed in memory and are not committed yet.
    pub pending: usize,
    /// The number of changes that the store or the codec rejects for good.
    pub refused: usize,
    /// The number of stored records that do not decode.
    pub unreadable: usize,
    /// The age of the oldest pending change, possibly overstated a little, never
    /// understated. `None` if nothing is pending.
    pub oldest_pending: Option<Duration>,
    /// The number of batches committed since the map was opened.
    pub commits: u64,
    /// The number of changes committed since the map was opened.
    pub changes: u64,
    /// The number of failed attempts since the map was opened.
    pub failed_attempts: u64,
    /// The number of changes that conflicted with another process's write since the
    /// map was opened. Always 0 unless the map
    /// [checks for conflicts](crate::Builder::conflicts).
    pub conflicts: u64,
    /// When the last commit returned, by the map's clock.
    pub last_commit: Option<SystemTime>,
}
