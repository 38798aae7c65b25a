//! Conflict policies: how a change is resolved if another process has changed its
//! key.

use std::{fmt, sync::Arc};

use tokio::sync::broadcast;

use crate::{
    error::{Error, ErrorKind, Result},
    event::Conflict,
    provider::Capabilities,
};

/// How many events a receiver may lag behind before it misses the oldest.
const CONFLICTS_KEPT: usize = 256;

/// How a change is resolved if another process has changed the same key since this
/// map loaded or last saved it.
///
/// Conflicts are detected when a change is committed, key by key; the other changes
/// of the commit are not affected. Conflicts are counted
/// ([`Stats::conflicts`](crate::Stats)) and reported
/// ([`conflicts`](crate::Map::conflicts)).
///
/// - A `flush` waits until they are resolved, and returns `Ok` whichever side won.
/// - A [save](crate::Map#saves) whose change lost returns
///   [`Conflict`](ErrorKind::Conflict), with the stored value; one whose value was
///   merged waits until the merged value is committed.
/// - A [`reload`](crate::Map::reload) does not touch pending changes: their
///   conflicts are detected when they are committed.
/// - A [`clear`](crate::Map::clear) empties the store, including other processes'
///   writes.
/// - An expiry is not a change: a value written by another process stays, and an
///   entry that another process swept counts as unchanged.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// use persistify::{Memory, OnConflict, PersistentMap};
///
/// let store = Memory::new();
/// let open = async || {
///     PersistentMap::<u32>::builder(store.clone(), "best")
///         .conflicts(OnConflict::Merge(|mine, theirs| mine.max(theirs)))
///         .open()
///         .await
/// };
/// let (here, there) = (open().await?, open().await?);
/// there.insert_and_save("score", 7).await?;
/// here.insert_and_save("score", 5).await?;
/// assert_eq!(here.get("score"), Some(7));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum OnConflict<V> {
    /// The last commit wins: another process's write in between is lost unnoticed.
    /// No check, no cost; conflicts are not counted.
    #[default]
    LastWrite,
    /// The store wins: the map takes the stored value, or its removal, and drops
    /// its own change. Later writes over that change are dropped, too, because they
    /// were made without knowing the stored value.
    StoreWins,
    /// The closure merges the two values, first the map's, then the stored one. The
    /// map holds and commits the result.
    ///
    /// A value wins over a removal, on either side. Both values are decoded from
    /// JSON, as after a restart. The closure runs under a lock: keep it short, and
    /// do not call a map from it. If it panics, or the stored value does not
    /// decode, the change is [refused](crate::Map::refused): it stays in memory,
    /// and nothing is overwritten until it is [retried](crate::Map::retry_refused),
    /// or the key is written again. (An unreadable record is then [set
    /// aside](crate::UnreadableRecord) first.)
    Merge(fn(V, V) -> V),
    /// Like [`Merge`](Self::Merge), with a closure that captures values; see
    /// [`merge`](Self::merge).
    MergeWith(Arc<dyn Fn(V, V) -> V + Send + Sync>),
}

impl<V> OnConflict<V> {
    /// [`MergeWith`](Self::MergeWith) a closure that may capture values. Name the
    /// value type in the closure unless the builder does: `|mine: u32, theirs| ..`.
    pub fn merge(merge: impl Fn(V, V) -> V + Send + Sync + 'static) -> Self {
        Self::MergeWith(Arc::new(merge))
    }
}

impl<V> fmt::Debug for OnConflict<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LastWrite => "LastWrite",
            Self::StoreWins => "StoreWins",
            Self::Merge(_) => "Merge",
            Self::MergeWith(_) => "MergeWith",
        })
    }
}

/// A map's conflict policy and the subscribers to its conflicts.
pub(crate) struct Conflicts<V> {
    pub(crate) policy: OnConflict<V>,
    events: broadcast::Sender<Conflict>,
}

impl<V> Conflicts<V> {
    pub(crate) fn new(policy: OnConflict<V>) -> Self {
        let events = broadcast::Sender::new(CONFLICTS_KEPT);
        Self { policy, events }
    }

    /// # Errors
    ///
    /// `Unsupported` if the provider cannot detect conflicts.
    pub(crate) fn check(&self, provider: Capabilities) -> Result<()> {
        if !self.are_detected() || provider.conditions {
            return Ok(());
        }
        let message = format!(
            "conflicts: this provider does not check conditions, which {:?} needs; use another \
             provider, or LastWrite",
            self.policy
        );
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// Whether a change is committed only if no other process has changed its key.
    pub(crate) fn are_detected(&self) -> bool {
        !matches!(self.policy, OnConflict::LastWrite)
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Conflict> {
        self.events.subscribe()
    }

    pub(crate) fn report(&self, conflict: Conflict) {
        // Without subscribers, the event is dropped.
        let _ = self.events.send(conflict);
    }
}
