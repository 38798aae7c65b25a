//! When a store that is down is tried again.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use super::Flusher;
use crate::{
    heartbeat::Heartbeat,
    map::{core::Core, lifetime::Lifetime},
};

/// What other maps of the same store tell of it.
pub(super) struct News {
    own: Option<Heartbeat>,
    beats: Option<watch::Receiver<u64>>,
    /// How often they found the store well, and this map did not.
    in_vain: u32,
}

impl News {
    pub(super) fn of(heartbeat: Option<Heartbeat>) -> Self {
        Self {
            beats: heartbeat.as_ref().map(Heartbeat::listen),
            own: heartbeat,
            in_vain: 0,
        }
    }

    /// This map has found the store well.
    pub(super) fn tell(&mut self) {
        self.in_vain = 0;
        if let Some(own) = &self.own {
            own.beat();
        }
    }

    /// What was told until now is known.
    fn forget(&mut self) {
        if let Some(beats) = &mut self.beats {
            beats.mark_unchanged();
        }
    }

    /// Waits until another map finds the store well.
    ///
    /// One that did so in vain may do so all the time, because what is wrong
    /// concerns this map alone: each time it waits twice as long before it
    /// listens, or it would hammer a store that others are at work on.
    async fn wait<V, L: Lifetime<V>>(&mut self, core: &Core<V, L>) {
        let Some(beats) = &mut self.beats else {
            return std::future::pending().await;
        };
        let (_, least) = core.options.retry.probe_delays();
        let factor = 2_u32.saturating_pow(self.in_vain) - 1;
        core.clock.sleep(least.saturating_mul(factor)).await;
        if beats.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.in_vain += 1;
    }
}

impl<V, L> Flusher<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    /// What came until now is answered by the attempt that begins now, if it
    /// fails; what comes later has another one.
    pub(super) fn begin_attempt(&mut self) {
        self.core.requests.lock().begin_attempt();
        self.news.forget();
    }

    /// Waits until a store that is down is to be tried again: as soon as somebody
    /// waits or another map has found it well, and else once in a while.
    ///
    /// Not before the base delay has passed since the last attempt: all who come
    /// until then share the next one, so that not even a thousand callers who ask
    /// time and again hammer a dead store.
    pub(super) async fn wait_to_probe(&mut self) {
        let (most, least) = self.core.options.retry.probe_delays();
        tokio::select! {
            () = self.core.clock.sleep(least) => {}
            () = self.refuse_to_stand_still() => {}
        }
        let Self { core, news, .. } = self;
        tokio::select! {
            () = core.clock.sleep(most.saturating_sub(least)) => {}
            () = urgency(core, news, true) => {}
        }
    }

    /// Waits before the next attempt on a store that is not taken for down yet.
    pub(super) async fn pause(&mut self, delay: Duration) {
        let (_, least) = self.core.options.retry.probe_delays();
        let least = least.min(delay);
        self.core.clock.sleep(least).await;
        let Self { core, news, .. } = self;
        tokio::select! {
            () = core.clock.sleep(delay.saturating_sub(least)) => {}
            () = urgency(core, news, false) => {}
        }
    }
}

/// Waits until the store is to be tried again at once: because a user says so, or,
/// if it is down, because somebody waits or another map has found it well.
pub(super) async fn urgency<V, L: Lifetime<V>>(core: &Core<V, L>, news: &mut News, is_down: bool) {
    let asked = async {
        loop {
            let woken = core.wake.notified();
            if core.requests.lock().is_urgent(is_down) {
                return;
            }
            woken.await;
        }
    };
    tokio::select! {
        () = asked => {}
        () = news.wait(core), if is_down => {}
    }
}
