//! What other maps of the same store find out about it.

use tokio::sync::watch;

use super::retry::RetryPolicy;
use crate::{clock::MapClock, heartbeat::Heartbeat};

/// What other maps of the same store find out about it, and what they are told.
pub(crate) struct News {
    own: Option<Heartbeat>,
    beats: Option<watch::Receiver<u64>>,
    /// How often they found the store well, and this map did not.
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

    /// This map has found the store well.
    pub(crate) fn tell(&mut self) {
        self.in_vain = 0;
        if let Some(own) = &self.own {
            own.beat();
        }
    }

    /// Everything that was told until now is known.
    pub(crate) fn forget(&mut self) {
        if let Some(beats) = &mut self.beats {
            beats.mark_unchanged();
        }
    }

    /// Waits until another map finds the store well.
    ///
    /// A map that finds the store failing all the same may do so every time, because the
    /// fault concerns that map alone. It waits twice as long before it listens again, so
    /// that it does not hammer a store that others are at work on.
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
