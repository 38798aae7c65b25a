//! The targets of log events and spans. They are documented in `lib.rs` and stable,
//! so they do not follow the names of modules.

/// Maps being opened, closed and dropped.
pub(crate) const MAP: &str = "persistify::map";

/// Loads from a store.
pub(crate) const LOAD: &str = "persistify::load";

/// Commits to a store.
pub(crate) const FLUSH: &str = "persistify::flush";

/// Observations of a provider, such as a torn journal, and of the layers around it.
pub(crate) const PROVIDER: &str = "persistify::provider";

/// Copies of maps between stores.
pub(crate) const COPY: &str = "persistify::copy";
