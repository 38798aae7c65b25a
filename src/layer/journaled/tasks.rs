//! The background tasks that drain the journals.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::state::State;
use crate::name::MapName;

/// The wait after a failed attempt: it doubles from `FIRST_DELAY` up to `MAX_DELAY`.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// The tasks, by map. They end with the last handle.
#[derive(Default)]
pub(super) struct Drains(Mutex<HashMap<MapName, AbortHandle>>);

impl Drains {
    /// Starts the task of a map, unless it runs. A task ends with its runtime.
    pub(super) fn ensure(&self, state: &Arc<State>) {
        let mut tasks = self.0.lock();
        let running = tasks.get(&state.map);
        if running.is_none_or(AbortHandle::is_finished) {
            let task = tokio::spawn(run(state.clone()));
            tasks.insert(state.map.clone(), task.abort_handle());
        }
    }

    pub(super) fn stop(&self) {
        for (_, task) in self.0.lock().drain() {
            task.abort();
        }
    }
}

impl Drop for Drains {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Drains the journal whenever it is woken, until it is aborted.
async fn run(state: Arc<State>) {
    loop {
        state.wake.notified().await;
        let mut delay = FIRST_DELAY;
        while state.drain().await.is_err() {
            tokio::time::sleep(delay).await;
            delay = MAX_DELAY.min(delay * 2);
        }
    }
}
