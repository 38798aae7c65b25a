//! The claims of a map about its store: its incarnation and last acknowledgement.

use std::time::{Duration, SystemTime};

use crate::{
    batch::{Acknowledged, BatchId, MapBatch},
    error::{Error, Result},
    incarnation::{Incarnation, Rewound},
};

/// The claims in every commit of a map. A store in which they do not hold has gone
/// back in time, or is another store.
#[derive(Clone, Copy, Default)]
pub(crate) struct Claims {
    /// The incarnation of the store, once it is known.
    incarnation: Option<Incarnation>,
    /// The last commit of this map's writer that the store acknowledged, by the
    /// map's clock.
    acknowledged: Option<Acknowledged>,
    /// The same moment by the system clock.
    wall: Option<SystemTime>,
}

impl Claims {
    /// Claims about a store of which only the incarnation is known.
    pub(crate) fn of(incarnation: Option<Incarnation>) -> Self {
        Self {
            incarnation,
            ..Self::default()
        }
    }

    /// Adds these claims to a part of a new batch.
    pub(crate) fn on(self, part: MapBatch, now: SystemTime) -> MapBatch {
        let age = self.age(now);
        let acknowledged = self.acknowledged.zip(age);
        let acknowledged = acknowledged.map(|(last, age)| {
            let at = now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
            Acknowledged::new(last.id, at)
        });
        part.in_incarnation(self.incarnation)
            .after_acknowledged(acknowledged)
    }

    /// The time since the last acknowledgement, if there was one.
    ///
    /// Two clocks measure it, and the longer time counts: the map's clock stands
    /// still while the machine sleeps, and the store may forget the writer in that
    /// time.
    pub(crate) fn age(self, now: SystemTime) -> Option<Duration> {
        let past = now
            .duration_since(self.acknowledged?.at)
            .unwrap_or_default();
        let slept = self.wall?.elapsed().unwrap_or_default();
        Some(past.max(slept))
    }

    /// Records that the store has acknowledged that batch.
    pub(crate) fn acknowledge(&mut self, id: BatchId, now: SystemTime) {
        self.acknowledged = Some(Acknowledged::new(id, now));
        self.wall = Some(SystemTime::now());
    }

    /// Adopts the incarnation that a store answered with, if none was known.
    ///
    /// # Errors
    ///
    /// `Rewound` if another one was known.
    pub(crate) fn check(&mut self, found: Option<Incarnation>) -> Result<()> {
        let Some(found) = found else {
            return Ok(());
        };
        match self.incarnation.replace(found) {
            Some(known) if known != found => {
                self.incarnation = Some(known);
                let acknowledged = self.acknowledged.map(|last| last.id.sequence);
                let states =
                    Rewound::new(Some(known), Some(found)).with_sequences(acknowledged, None);
                Err(Error::store_rewound(states))
            }
            _ => Ok(()),
        }
    }
}
