//! The terms on which the maps of a phase are opened.

use std::{sync::Arc, time::Duration};

use persistify::{
    Builder, CachingMap, ErrorKind, OnConflict, PersistentMap, Provider, Result, RetryPolicy,
    SystemClock, serde_json::json,
};
use rand::{RngExt, rngs::StdRng};

use super::{
    book::Span,
    stored::name,
    tested::{Either, Tested, Value},
};

pub(super) const MS: Duration = Duration::from_millis(1);

/// The policy for conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    LastWrite,
    StoreWins,
    Merge,
}

/// The options of the maps, and whether another owner has them open.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) shape: u32,
    pub(super) policy: Policy,
    /// Whether each map is open twice.
    pub(super) foreign: bool,
    pub(super) rewrite: bool,
    max_pending: Option<usize>,
    /// The TTL of the caching map, in milliseconds.
    live: Option<u64>,
    pub(super) idle: Option<u64>,
}

/// Whether this is the caching map, which is the second one.
pub(super) fn is_caching(map: usize) -> bool {
    map == 1
}

impl Terms {
    pub(super) fn draw(dice: &mut StdRng, shape: u32) -> Self {
        let policies = [Policy::LastWrite, Policy::StoreWins, Policy::Merge];
        Self {
            shape,
            policy: policies[dice.random_range(0..3)],
            foreign: dice.random(),
            rewrite: dice.random(),
            max_pending: dice.random_ratio(1, 6).then_some(2),
            live: dice
                .random_ratio(1, 3)
                .then(|| dice.random_range(200..4_000)),
            idle: dice
                .random_ratio(1, 4)
                .then(|| dice.random_range(200..4_000)),
        }
    }

    /// Whether an acknowledged write may lose against another owner's stored value.
    pub(super) fn may_lose(&self) -> bool {
        self.foreign && self.policy != Policy::LastWrite
    }

    pub(super) fn merges(&self) -> bool {
        self.foreign && self.policy == Policy::Merge
    }

    /// The remaining lifetime of an entry that is written now, with or without a TTL of its own.
    pub(super) fn span(&self, map: usize, own: Option<Duration>) -> Span {
        if !is_caching(map) {
            return Span::default();
        }
        if let Some(own) = own {
            let own = u64::try_from(own.as_millis()).ok();
            return Span {
                least: own,
                most: own,
            };
        }
        let idle = self.idle.map(|idle| idle - idle / 10);
        Span {
            least: [self.live, idle].into_iter().flatten().min(),
            most: self.live,
        }
    }

    /// The remaining lifetime of a stored entry.
    pub(super) fn rest(&self, map: usize, rest: Option<u64>) -> Span {
        if !is_caching(map) {
            return Span::default();
        }
        // An idle entry with earlier settings may outlive the current ones.
        let at_once = self.idle.map(|_| 0);
        // An entry without an expiry gets one when the map is opened.
        let begun = self.live.filter(|_| rest.is_none());
        Span {
            least: [rest, at_once, begun].into_iter().flatten().min(),
            most: rest.filter(|_| self.idle.is_none()),
        }
    }

    fn set<P>(&self, builder: Builder<Value, P>, clock: &SystemClock) -> Builder<Value, P> {
        let policy = RetryPolicy::default().jitter(false);
        let builder = builder
            .clock(clock.clone())
            .batch(3, MS * 300)
            .max_batch(3)
            .commit_timeout(MS * 1_000)
            .retry(
                policy
                    .clone()
                    .max_attempts(3)
                    .base_delay(MS * 20)
                    .max_delay(MS * 1_000)
                    .probe_delay(MS * 1_000),
            )
            .retry_conflicts(policy.base_delay(MS * 10).max_delay(MS * 100))
            .schema(self.shape)
            .conflicts(match self.policy {
                Policy::LastWrite => OnConflict::LastWrite,
                Policy::StoreWins => OnConflict::StoreWins,
                Policy::Merge => OnConflict::merge(|a: Value, b: Value| a.max(b)),
            });
        let builder = (0..self.shape).fold(builder, |builder, from| {
            builder.migrate(from, move |value| match value[0].as_u64() {
                Some(shape) if shape == u64::from(from) => Ok(json!([from + 1, value[1]])),
                _ => Err(format!("{value} is not of shape {from}")),
            })
        });
        let builder = match self.max_pending {
            Some(max) => builder.max_pending(max),
            None => builder,
        };
        if self.rewrite {
            builder.rewrite_on_load()
        } else {
            builder
        }
    }

    /// Opens one of the maps. If an unreadable record keeps it from opening, opens it with
    /// `allow_unreadable`.
    pub(super) async fn open(
        &self,
        store: &Arc<dyn Provider>,
        clock: &SystemClock,
        n: usize,
    ) -> Result<Tested> {
        let strict = self.open_allowing(store, clock, n, false).await;
        match strict {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.open_allowing(store, clock, n, true).await
            }
            opened => opened,
        }
    }

    async fn open_allowing(
        &self,
        store: &Arc<dyn Provider>,
        clock: &SystemClock,
        n: usize,
        unreadable: bool,
    ) -> Result<Tested> {
        let map = if is_caching(n) {
            let mut builder = self.set(CachingMap::builder(store.clone(), name(n)), clock);
            if let Some(live) = self.live {
                builder = builder.time_to_live(Duration::from_millis(live));
            }
            if let Some(idle) = self.idle {
                builder = builder.time_to_idle(Duration::from_millis(idle));
            }
            let builder = if unreadable {
                builder.allow_unreadable()
            } else {
                builder
            };
            Either::Caching(builder.open().await?)
        } else {
            let builder = self.set(PersistentMap::builder(store.clone(), name(n)), clock);
            let builder = if unreadable {
                builder.allow_unreadable()
            } else {
                builder
            };
            Either::Plain(builder.open().await?)
        };
        let shape = self.shape;
        Ok(Tested { map, shape })
    }
}
