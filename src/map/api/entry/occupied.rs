//! The error of an insert whose key is occupied.

use std::{fmt, sync::Arc};

/// The key has an entry already; returns the value that was not inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupied<V> {
    /// The occupied key.
    pub key: Arc<str>,
    /// The value that was not inserted.
    pub value: V,
}

impl<V> fmt::Display for Occupied<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the key {:?} has an entry already", self.key)
    }
}

impl<V: fmt::Debug> std::error::Error for Occupied<V> {}
