//! The seam where other parts of a map see each change of an entry.

use std::sync::Arc;

/// Sees each change of the entries of a map, in the critical section in which it happens:
/// changes of one key come in their order.
///
/// The shard of the entry is locked meanwhile (all shards, for a clear), so an observer is
/// quick, does not call a map and does not block.
pub(crate) trait Observer<V>: Send + Sync {
    /// The entry holds this value now, or is gone. A change may be told twice.
    fn changed(&self, key: &Arc<str>, value: Option<&V>);

    /// All entries are gone.
    fn cleared(&self);
}

#[cfg(test)]
mod tests;
