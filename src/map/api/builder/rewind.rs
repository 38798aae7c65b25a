//! How a map proceeds when its store has gone back in time.

/// How a map proceeds when its store has gone back in time: it was replaced by an
/// older copy of itself, or by an empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rewind {
    /// The map stops: it writes nothing, all changes stay pending, and reads keep
    /// working. Saves and `close` return [`Rewound`](crate::ErrorKind::Rewound).
    /// The map resumes when the store is back at the state it had, or when
    /// [`resolve_rewind`](crate::Map::resolve_rewind) is called.
    #[default]
    Stop,
    /// The map saves all of its entries again and removes other entries from the
    /// store, so that the store equals memory.
    ///
    /// For maps with a single writer. Commits that another process has made since
    /// the store went back are overwritten.
    SaveAgain,
    /// The map takes the stored entries, then commits pending changes by its
    /// [conflict policy](crate::Builder::conflicts). Commits that the store has
    /// lost disappear from memory, too.
    TakeStore,
}
