//! What the benches share.

mod customer;
mod discard;
mod keys;
mod pair;

pub use customer::Customer;
pub use discard::Discard;
pub use keys::{keys, shuffled};
pub use pair::{Comparison, print_heading, timed};

use std::time::Duration;

use persistify::{PersistentMap, PersistentMapBuilder, Provider, Verify};
use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::Runtime;

/// Which values the maps of the benches read back before they save them: those
/// that a map reads back by default.
pub const VERIFY: Verify = Verify::Always;

/// A runtime with one thread, which is the flusher's.
///
/// # Panics
///
/// If the machine has no thread left.
#[must_use]
pub fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(1).enable_all();
    builder.build().expect("a runtime")
}

/// An open map with the options as they come.
///
/// # Panics
///
/// If it does not open.
pub fn open<V>(runtime: &Runtime, provider: impl Provider) -> PersistentMap<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let builder = PersistentMap::builder(provider, "bench");
    open_with(runtime, builder.verify(VERIFY))
}

/// An open map that saves only when it is asked to.
///
/// # Panics
///
/// If it does not open.
pub fn open_idle<V>(runtime: &Runtime, provider: impl Provider) -> PersistentMap<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    open_verifying(runtime, provider, VERIFY)
}

/// The same, with a choice of what is read back.
///
/// # Panics
///
/// If it does not open.
pub fn open_verifying<V>(
    runtime: &Runtime,
    provider: impl Provider,
    verify: Verify,
) -> PersistentMap<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let builder = PersistentMap::builder(provider, "bench").verify(verify);
    open_with(runtime, builder.batch(usize::MAX, Duration::from_hours(1)))
}

fn open_with<V>(runtime: &Runtime, builder: PersistentMapBuilder<V>) -> PersistentMap<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    runtime.block_on(builder.open()).expect("an open map")
}
