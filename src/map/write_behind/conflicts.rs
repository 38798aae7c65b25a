//! What becomes of a change when another process has changed the same key.

use std::{fmt, sync::Arc};

use tokio::sync::broadcast;

use crate::{
    error::{Error, ErrorKind, Result},
    event::Conflict,
    provider::Capabilities,
};

/// How many conflicts a slow subscriber may lag behind.
const CONFLICTS_KEPT: usize = 256;

/// What becomes of a change when another process has changed the same key since
/// this map loaded or last saved it.
///
/// Conflicts are noticed when a change is committed, key by key; the others of
/// the same commit go on. They are counted ([`Stats::conflicts`](crate::Stats))
/// and told ([`conflicts`](crate::Map::conflicts)).
///
/// - A `flush` waits until they are dealt with, and is `Ok` whoever won.
/// - A [save](crate::Map#saves) whose change lost errs as
///   [`Conflict`](ErrorKind::Conflict), with what is stored; one whose value was
///   merged waits until that is committed.
/// - A [`reload`](crate::Map::reload) leaves alone what is pending: it is judged
///   when it is committed.
/// - A [`clear`](crate::Map::clear) empties the store, whatever others wrote.
/// - Expiry is no change: what another process wrote stays, and what another
///   process swept was not changed.
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
    /// The last commit wins: what another process wrote in between is lost, and
    /// nobody notices. Nothing is looked at, so it costs nothing, and nothing is
    /// counted.
    #[default]
    LastWrite,
    /// The store wins: the map takes what is stored, a removal too, and its own
    /// change is gone. So is what was written over that change meanwhile: it was
    /// made without knowing what is stored, too.
    StoreWins,
    /// The map holds, and commits, what the closure makes of the two values: first
    /// its own, then the stored one.
    ///
    /// A value wins over a removal, whoever removed. Both values come out of their
    /// JSON text, as after a restart. The closure runs under a lock: it should be
    /// short, and must not call a map. If it panics, or the stored value does not
    /// decode, the change is [refused](crate::Map::refused): it stays in memory,
    /// and nothing is overwritten until it is
    /// [tried again](crate::Map::retry_refused), or the key is written again. (An
    /// unreadable record is then [set aside](crate::UnreadableRecord) first.)
    Merge(fn(V, V) -> V),
    /// The same, by a closure that may hold values of its own; see
    /// [`merge`](Self::merge).
    MergeWith(Arc<dyn Fn(V, V) -> V + Send + Sync>),
}

impl<V> OnConflict<V> {
    /// [`Merge`](Self::Merge), by a closure that may hold values of its own. It
    /// names its type, unless the builder does: `|mine: u32, theirs| ..`.
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

/// What a map does about conflicts, and who hears of them.
pub(crate) struct Conflicts<V> {
    pub(crate) policy: OnConflict<V>,
    told: broadcast::Sender<Conflict>,
}

impl<V> Conflicts<V> {
    pub(crate) fn new(policy: OnConflict<V>) -> Self {
        let told = broadcast::Sender::new(CONFLICTS_KEPT);
        Self { policy, told }
    }

    /// # Errors
    ///
    /// `Unsupported` if the provider cannot notice conflicts.
    pub(crate) fn check(&self, provider: Capabilities) -> Result<()> {
        if !self.are_looked_for() || provider.conditions {
            return Ok(());
        }
        let message = format!(
            "conflicts: this provider checks no conditions, which {:?} needs; use another \
             provider, or LastWrite",
            self.policy
        );
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// Whether a change goes to the store only if nobody else has changed its key.
    pub(crate) fn are_looked_for(&self) -> bool {
        !matches!(self.policy, OnConflict::LastWrite)
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Conflict> {
        self.told.subscribe()
    }

    pub(crate) fn tell(&self, conflict: Conflict) {
        // Without a subscriber there is nobody to tell.
        let _ = self.told.send(conflict);
    }
}
