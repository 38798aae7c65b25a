//! What a map tells about its saving: failures, health, figures.

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

/// How many keys a [`SaveFailure`] names.
const MAX_KEYS_NAMED: usize = 10;

/// One failed attempt to save, as [`failures`](crate::Map::failures)
/// sends it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SaveFailure {
    /// The map.
    pub map: MapName,
    /// What was attempted.
    pub operation: Operation,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// How many attempts there are.
    pub max_attempts: u32,
    /// Whether this was the last attempt: true once an outage, when the map
    /// takes the store for down, and for changes that are refused. The changes
    /// stay pending (or, if refused, in memory). [Probes](Operation::Probe) of a
    /// store that is down are never the last.
    pub is_final: bool,
    /// The keys concerned.
    pub keys: KeySample,
    /// What went wrong; a clone of it costs nothing.
    pub error: Error,
}

/// What a [`SaveFailure`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Committing a batch.
    Commit,
    /// Trying whether a store that is [down](Health::Down) is well again.
    Probe,
    /// Writing a value as JSON.
    Encode,
    /// Setting an unreadable record aside before its key is overwritten.
    SetAside,
    /// Merging a value with what another process has stored.
    Merge,
}

/// A change that met what another process had stored meanwhile, as
/// [`conflicts`](crate::Map::conflicts) sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// The map.
    pub map: MapName,
    /// The key.
    pub key: Arc<str>,
    /// The revision that the change was made on; `None` if the map knew of no
    /// stored entry.
    pub mine: Option<Revision>,
    /// The revision that the store has now; `None` if it has no such entry.
    pub theirs: Option<Revision>,
    /// How it ended.
    pub resolution: Resolution,
}

/// How a [`Conflict`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resolution {
    /// The map holds what is stored. Its own change is gone, and whoever waits
    /// for it is told so.
    StoreWon,
    /// The map's own value stays, and is committed again: the store has no value
    /// to merge it with.
    MapWon,
    /// The map holds what the closure made of the two, which is committed next.
    Merged,
    /// They could not be merged: the change is [refused](crate::Map::refused).
    Refused,
}

/// How many keys, and the first few of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySample {
    /// How many keys there are.
    pub count: usize,
    /// The first ten.
    pub first: Vec<Arc<str>>,
}

impl KeySample {
    /// Counts the keys and keeps the first few.
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
    /// They do, as far as is known.
    #[default]
    Healthy,
    /// They do not: the attempts are spent. Everything stays pending, and
    /// probes go on until the store is well again.
    #[non_exhaustive]
    Down {
        /// When the attempts were spent, by the map's clock.
        since: SystemTime,
        /// What the latest attempt failed with. A later one that fails with
        /// another [kind](Error::kind) is a change that watchers are told of.
        error: Error,
    },
    /// They never will again: the map's background task has ended. Either the
    /// map was closed, or the runtime that it was opened on has ended, or its
    /// last handle was dropped.
    #[non_exhaustive]
    Ended {
        /// What saves are answered with from now on; its kind is
        /// [`ErrorKind::Closed`].
        error: Error,
    },
    /// They do not: the store has lost commits that it had acknowledged, because
    /// it was replaced by an older copy of itself or by an empty store. Nothing
    /// is written, and everything stays pending, until the store is as it was or
    /// the map is [told how to go on](crate::Map::resolve_rewind). Reads go on.
    #[non_exhaustive]
    Rewound {
        /// When that was noticed, by the map's clock.
        since: SystemTime,
        /// What the map knew of the store, and what the store holds.
        store: Rewound,
        /// The same as an error, which says what to do.
        error: Error,
    },
}

impl Health {
    /// Whether changes reach the store, as far as is known.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy)
    }

    /// The kind of what is wrong, if something is.
    pub fn kind(&self) -> Option<ErrorKind> {
        self.error().map(Error::kind)
    }

    /// What is wrong, if something is.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Healthy => None,
            Self::Down { error, .. } | Self::Ended { error } | Self::Rewound { error, .. } => {
                Some(error)
            }
        }
    }

    /// Since when the store is down or has gone back in time, if it is so.
    pub fn since(&self) -> Option<SystemTime> {
        match self {
            Self::Healthy | Self::Ended { .. } => None,
            Self::Down { since, .. } | Self::Rewound { since, .. } => Some(*since),
        }
    }

    /// The latest attempt failed. Says whether that is a change: the store was
    /// well before, or has another remedy now.
    pub(crate) fn fail(&mut self, now: SystemTime, error: Error) -> bool {
        let (since, is_change) = match self {
            Self::Down { since, error: last }
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
        } else {
            Self::Down { since, error }
        };
        is_change
    }
}

/// A pending change that the store (or the codec) will not take.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefusedChange {
    /// Its key.
    pub key: Arc<str>,
    /// Why it was refused.
    pub error: Error,
}

impl RefusedChange {
    pub(crate) fn new(key: Arc<str>, error: Error) -> Self {
        Self { key, error }
    }
}

/// A stored record that does not decode. Its bytes stay in the store: where they
/// are, or, once its key is overwritten, in the map of the name
/// `<map>/unreadable` of the same provider
/// (`name.nested("unreadable")`), under `<revision>:<key>`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnreadableRecord {
    /// The record as it is stored.
    pub record: Record,
    /// Why it does not decode.
    pub error: Error,
    /// Whether it was set aside, because its key was overwritten.
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

/// Figures of a map, all of the same moment or close to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys changed in memory and not yet committed.
    pub pending: usize,
    /// Changes that the store will not take.
    pub refused: usize,
    /// Stored records that do not decode.
    pub unreadable: usize,
    /// How long ago the oldest pending change was made, or a little more:
    /// never less. `None` if nothing is pending.
    pub oldest_pending: Option<Duration>,
    /// Batches committed since the map was opened.
    pub commits: u64,
    /// Changes committed since the map was opened.
    pub changes: u64,
    /// Attempts that failed since the map was opened.
    pub failed_attempts: u64,
    /// Changes that met what another process had stored meanwhile, since the
    /// map was opened; none are noticed unless the map
    /// [looks for them](crate::Builder::conflicts).
    pub conflicts: u64,
    /// When the last commit returned, by the map's clock.
    pub last_commit: Option<SystemTime>,
}
