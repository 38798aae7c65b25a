//! The targets of what the crate logs. They are documented in `lib.rs`, stay as
//! they are, and do not follow the names of modules.

/// The life of a map: opened, closed, dropped.
pub(crate) const MAP: &str = "persistify::map";

/// What comes up from a store.
pub(crate) const LOAD: &str = "persistify::load";

/// What goes down to a store.
pub(crate) const FLUSH: &str = "persistify::flush";

/// What a provider notices.
#[cfg(any(feature = "json", feature = "postgres"))]
pub(crate) const PROVIDER: &str = "persistify::provider";

/// Maps on their way from one store to another.
pub(crate) const COPY: &str = "persistify::copy";
