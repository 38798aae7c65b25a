//! The mirror: a background task that keeps the standby up to date.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use super::{
    copying::{Copying, Manner},
    limit::within,
};
use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
    provider::Provider,
    trace::COPY,
};

/// How long the task waits for further commits before it copies those that woke it.
const GATHERING: Duration = Duration::from_millis(50);

/// The pause after the first failure; it doubles up to the interval.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How far the standby of a [`Failover`](super::Failover) lags behind the primary.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Lag {
    /// The maps with commits that may not be on the standby yet, as far as this process knows.
    pub maps: Vec<MapName>,
    /// The time for which the first of them has been behind; `None` if there are none.
    pub oldest: Option<Duration>,
    /// The last error of an attempt to copy, of the primary or of the standby; `None` once all maps
    /// that were due are copied.
    pub error: Option<Error>,
}

/// The handle of the mirror. The task ends when it is dropped.
#[derive(Debug)]
pub(super) struct Mirror {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    standby: Arc<dyn Provider>,
    limit: Duration,
    interval: Duration,
    copying: tokio::sync::Mutex<Copying>,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    behind: BTreeMap<MapName, Behind>,
    /// The maps that are copied regularly, and when they are due next if that takes a comparison
    /// of all records.
    followed: BTreeMap<MapName, Option<Instant>>,
    error: Option<Error>,
    is_closed: bool,
}

/// A map with commits that may not be on the standby.
#[derive(Clone, Copy, Debug)]
struct Behind {
    since: Instant,
    /// How often it was marked: a commit during a copy may be missing from that copy.
    marks: u64,
}

impl Mirror {
    pub(super) fn new(
        copying: Copying,
        standby: Arc<dyn Provider>,
        (limit, interval): (Duration, Duration),
    ) -> Self {
        let shared = Shared {
            standby,
            limit,
            interval,
            copying: tokio::sync::Mutex::new(copying),
            state: Mutex::default(),
            wake: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
            task: Mutex::default(),
        }
    }

    /// Records that these maps may have commits that are not on the standby, and follows them from
    /// now on.
    pub(super) fn mark(&self, maps: impl IntoIterator<Item = MapName>) {
        {
            let mut state = self.shared.state.lock();
            if state.is_closed {
                return;
            }
            for map in maps {
                state.followed.entry(map.clone()).or_default();
                state.mark(map);
            }
        }
        self.shared.wake.notify_one();
        self.start();
    }

    pub(super) fn follows(&self, map: &MapName) -> bool {
        self.shared.state.lock().followed.contains_key(map)
    }

    /// Starts the task, unless it runs. Its runtime may have shut down since it was started.
    fn start(&self) {
        let mut task = self.task.lock();
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        // Outside of a runtime, the next call starts it.
        *task = Handle::try_current()
            .ok()
            .map(|runtime| runtime.spawn(self.shared.clone().run()));
    }

    pub(super) fn lag(&self) -> Lag {
        let state = self.shared.state.lock();
        let oldest = state.behind.values().map(|behind| behind.since).min();
        Lag {
            maps: state.behind.keys().cloned().collect(),
            oldest: oldest.map(|since| since.elapsed()),
            error: state.error.clone(),
        }
    }

    /// Copies the commits that the standby lacks, of all maps that are followed.
    pub(super) async fn catch_up(&self) -> Result<()> {
        self.shared.state.lock().mark_all();
        self.shared.round(true).await
    }

    /// Stops following a map that is being closed, after a last copy.
    pub(super) async fn release(&self, map: &MapName) {
        if self.shared.state.lock().followed.remove(map).is_none() {
            return;
        }
        let Shared { limit, standby, .. } = &*self.shared;
        let released = within(*limit, async {
            self.shared.copy(map).await?;
            standby.release(map).await
        });
        if let Err(error) = released.await {
            // Its commits are still marked, and the task goes on trying.
            tracing::warn!(target: COPY, %map, error = %error.logged(), "a map was closed before its last changes were on the standby");
        }
    }

    /// Ends the task, after a last copy.
    pub(super) async fn close(&self) {
        self.shared.state.lock().is_closed = true;
        let shared = &self.shared;
        let copied = within(shared.limit, shared.round(true)).await;
        if let Err(error) = copied {
            tracing::warn!(target: COPY, error = %error.logged(), "the provider was closed before its last changes were on the standby; the next start copies them");
        }
        self.end();
    }

    fn end(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.end();
    }
}

impl State {
    fn mark(&mut self, map: MapName) {
        let now = Instant::now();
        let new = Behind {
            since: now,
            marks: 0,
        };
        self.behind.entry(map).or_insert(new).marks += 1;
    }

    fn mark_all(&mut self) {
        let followed: Vec<_> = self.followed.keys().cloned().collect();
        for map in followed {
            self.mark(map);
        }
    }

    /// The maps to copy now.
    fn due(&self, all: bool) -> BTreeSet<MapName> {
        let now = Instant::now();
        let is_due = |map: &MapName| self.followed.get(map).copied().flatten() <= Some(now);
        let behind = self.behind.keys();
        behind.filter(|map| all || is_due(map)).cloned().collect()
    }

    /// Records that a map was copied. It stays behind if it was marked since.
    fn copied(&mut self, map: &MapName, before: Option<Behind>, next: Option<Instant>) {
        let now = self.behind.get(map).map(|behind| behind.marks);
        if now == before.map(|behind| behind.marks) {
            self.behind.remove(map);
        } else if let Some(behind) = self.behind.get_mut(map) {
            behind.since = Instant::now();
        }
        if let Some(due) = self.followed.get_mut(map) {
            *due = next;
        }
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        let mut ticks = interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = self.wake.notified() => sleep(GATHERING).await,
                // Other processes may have written to the primary.
                _ = ticks.tick() => self.state.lock().mark_all(),
            }
            if self.round(false).await.is_ok() {
                pause = FIRST_PAUSE;
                continue;
            }
            sleep(pause.min(self.interval)).await;
            pause = pause.saturating_mul(2).min(self.interval);
            self.wake.notify_one();
        }
    }

    /// Copies the maps that are behind. A map that cannot be copied does not delay the others.
    async fn round(&self, all: bool) -> Result<()> {
        let due = self.state.lock().due(all);
        let mut done = Ok(());
        for map in due {
            match self.copy(&map).await {
                Ok(()) => {}
                // The others would wait for the same provider.
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Err(error) => done = Err(error),
            }
        }
        if done.is_ok() {
            self.state.lock().error = None;
        }
        done
    }

    async fn copy(&self, map: &MapName) -> Result<()> {
        let mut copying = self.copying.lock().await;
        let before = self.state.lock().behind.get(map).copied();
        match copying.catch_up(map).await {
            Ok(manner) => {
                // A comparison reads both stores, so it is not made after each commit.
                let next =
                    (manner == Manner::Comparison).then(|| Instant::now() + self.interval / 2);
                self.state.lock().copied(map, before, next);
                Ok(())
            }
            Err(error) => {
                let error = error.on_map(map);
                let last = self.state.lock().error.replace(error.clone());
                if last.is_none() {
                    tracing::warn!(target: COPY, %map, error = %error.logged(), "the standby falls behind");
                }
                Err(error)
            }
        }
    }
}
