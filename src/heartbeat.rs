//! The signal that a store has answered, shared by all maps of the store.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

/// A signal between the maps of one store: the store has answered.
///
/// A provider returns it from
/// [`Provider::heartbeat`](crate::Provider::heartbeat) and does nothing else with
/// it. A map whose commit or ping succeeds notifies the other maps; those whose
/// health is [`Down`](crate::Health::Down) retry at once instead of waiting for
/// their next probe.
///
/// Clones share the signal. A notification takes well under a microsecond.
///
/// ```
/// use persistify::Heartbeat;
///
/// # #[derive(Clone)]
/// struct MyStore {
///     // A field of the handle; clones of the handle share the signal.
///     heartbeat: Heartbeat,
/// }
/// # let store = MyStore { heartbeat: Heartbeat::new() };
/// # drop(store.clone().heartbeat);
/// ```
#[derive(Clone)]
pub struct Heartbeat(Arc<watch::Sender<u64>>);

impl Heartbeat {
    /// Creates a signal that no map uses yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Notifies all maps that the store has answered.
    pub(crate) fn beat(&self) {
        self.0.send_modify(|beats| *beats = beats.wrapping_add(1));
    }

    /// Subscribes to all notifications from now on.
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").finish_non_exhaustive()
    }
}
