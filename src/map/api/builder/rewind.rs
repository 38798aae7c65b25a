//! How a map goes on once its store has gone back in time.

/// How a map goes on once its store turns out to have gone back in time: it was
/// replaced by an older copy of itself, or by an empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rewind {
    /// The map stops: nothing is written, everything stays pending, reads go on.
    /// Saves err as [`Rewound`](crate::ErrorKind::Rewound), and so does `close`.
    /// It goes on once the store is as it was, or once
    /// [`resolve_rewind`](crate::Map::resolve_rewind) says how.
    #[default]
    Stop,
    /// The map saves all that it holds once more, and removes from the store
    /// what it does not hold: then the store equals memory.
    ///
    /// For maps that no one else writes to. What another process has committed
    /// to the store since it went back is overwritten.
    SaveAgain,
    /// The map takes what the store holds, and then commits what is pending, by
    /// its [conflict policy](crate::Builder::conflicts). Commits that the store
    /// has lost are gone from memory, too.
    TakeStore,
}
