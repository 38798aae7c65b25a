//! The hook through which other parts of a map see each change of an entry.

use std::sync::Arc;

/// Sees each change of a map's entries, in the critical section in which it
/// happens: changes of one key arrive in order.
///
/// The shard of the entry is locked during the call (all shards, for a clear), so
/// an observer must be quick, must not call a map and must not block.
pub(crate) trait Observer<V>: Send + Sync {
    /// Called when the entry holds a new value, or is gone (`None`). A change may
    /// be reported twice.
    fn changed(&self, key: &Arc<str>, value: Option<&V>);

    /// Called when all entries are removed.
    fn cleared(&self);
}

#[cfg(test)]
mod tests;
