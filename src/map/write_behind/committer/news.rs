//! Exchanges the health of a store among the maps that share it.

use tokio::sync::watch;

use super::retry::RetryPolicy;
use crate::{clock::MapClock, heartbeat::Heartbeat};

/// Tells other maps of the same store that it is healthy, and learns it from them.
pub(crate) struct News {
    own: Option<Heartbeat>,
    beats: Option<watch::Receiver<u64>>,
    /// How often other maps found the store healthy when this one did not.
    in_vain: u32,
}

impl News {
    pub(crate) fn of(heartbeat: Option<Heartbeat>) -> Self {
        Self {
            beats: heartbeat.as_ref().map(Heartbeat::listen),
            own: heartbeat,
            in_vain: 0,
        }
    }

    /// Reports that this map found the store healthy.
    pub(crate) fn tell(&mut self) {
        self.in_vain = 0;
        if let Some(own) = &self.own {
            own.beat();
        }
    }

    /// Ignores everything reported until now.
    pub(crate) fn forget(&mut self) {
        if let Some(beats) = &mut self.beats {
            beats.mark_unchanged();
        }
    }

    /// Waits until another map finds the store healthy.
    ///
    /// If the store still fails for this map then, it may do so every time,
    /// because the fault concerns this map alone. The map doubles the wait before
    /// it listens again, so that it does not hammer a store that works for other
    /// maps.
    pub(crate) async fn wait(&mut self, retry: &RetryPolicy, clock: &MapClock) {
        let Some(beats) = &mut self.beats else {
            return std::future::pending().await;
        };
        let (_, least) = retry.probe_delays();
        let factor = 2_u32.saturating_pow(self.in_vain) - 1;
        clock.sleep(least.saturating_mul(factor)).await;
        if beats.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.in_vain += 1;
    }
}
