//! Shared code of the benchmarks.

mod customer;
mod discard;
mod keys;
mod pair;
mod unit;

pub use customer::Customer;
pub use discard::Discard;
pub use keys::{keys, shuffled};
pub use pair::{Comparison, print_heading, timed};
pub use unit::{Unit, in_unit};

use std::time::Duration;

use persistify::{PersistentMap, PersistentMapBuilder, Provider, Verify};
use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::Runtime;

/// The verification of saved values in the benchmarks; the default of a map.
pub const VERIFY: Verify = Verify::Always;

/// Creates a runtime with one worker thread, on which the flusher runs.
///
/// # Panics
///
/// If the thread cannot be started.
#[must_use]
pub fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(1).enable_all();
    builder.build().expect("a runtime")
}

/// Opens a map with default options.
///
/// # Panics
///
/// If the map does not open.
pub fn open<V>(runtime: &Runtime, provider: impl Provider) -> PersistentMap<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let builder = PersistentMap::builder(provider, "bench");
    open_with(runtime, builder.verify(VERIFY))
}

/// Opens a map that saves only on request.
///
/// # Panics
///
/// If the map does not open.
pub fn open_idle<V>(runtime: &Runtime, provider: impl Provider) -> PersistentMap<V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    open_verifying(runtime, provider, VERIFY)
}

/// Opens a map that saves only on request, with the given verification.
///
/// # Panics
///
/// If the map does not open.
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
