//! The answer to an insert whose key is taken.

use std::{fmt, sync::Arc};

/// The key is taken; the value that was to be inserted comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupied<V> {
    /// The key that is taken.
    pub key: Arc<str>,
    /// The value that was not inserted.
    pub value: V,
}

impl<V> fmt::Display for Occupied<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is an entry at the key {:?} already", self.key)
    }
}

impl<V: fmt::Debug> std::error::Error for Occupied<V> {}
