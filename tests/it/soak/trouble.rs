//! A store that fails in every way.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use persistify::{
    ErrorKind, Op,
    testing::{Call, Fault, Faulty, Hang},
};
use rand::{RngExt, rngs::StdRng};
use tokio::time::sleep;

use super::{held::Held, trace};

/// The faults of a store, and its hanging calls.
pub(super) struct Trouble {
    hangs: Arc<Mutex<Vec<Hang>>>,
}

impl Trouble {
    /// Makes calls of the store fail and hang from now on.
    pub(super) fn begin(store: &Faulty<Held>, mut dice: StdRng) -> Self {
        let hangs: Arc<Mutex<Vec<Hang>>> = Arc::default();
        let refused = match dice.random_range(0..4) {
            0 => Some("k0"),
            1 => Some("k1"),
            _ => None,
        };
        if dice.random() {
            store.refuse(refused);
        } else {
            store.refuse_unnamed(refused);
        }
        let (held, calm) = (hangs.clone(), dice.random_range(2..8));
        let mut seen = HashSet::new();
        let mut rule = move |call: &Call| {
            let first = is_first(call, &mut seen);
            if dice.random_range(0..8) < calm {
                return Fault::None;
            }
            // A change that the store will never accept cannot have been applied.
            if refused.is_some_and(|key| puts(call, key)) {
                let fault = Fault::Lost(ErrorKind::Unavailable);
                return if dice.random() { fault } else { Fault::None };
            }
            let unusable = dice.random_ratio(1, 8);
            let kind = if unusable {
                ErrorKind::Unusable
            } else {
                ErrorKind::Unavailable
            };
            match dice.random_range(0..6) {
                0 => Fault::Before(kind),
                1 | 2 => Fault::Lost(kind),
                3 => Fault::After(kind),
                4 if first => Fault::Before(ErrorKind::Refused),
                _ => {
                    let hang = Hang::new();
                    held.lock().push(hang.clone());
                    Fault::Hang(hang)
                }
            }
        };
        store.set_rule(move |call| {
            let fault = rule(call);
            trace::call(call, &fault);
            fault
        });
        Self { hangs }
    }

    /// Lets hanging calls resume late, or be applied after they were given up. Some are left
    /// hanging.
    pub(super) async fn come_late(&self, mut dice: StdRng) {
        loop {
            sleep(Duration::from_millis(dice.random_range(100..2_500))).await;
            let hang = {
                let mut hangs = self.hangs.lock();
                if hangs.is_empty() {
                    continue;
                }
                let n = dice.random_range(0..hangs.len());
                hangs.swap_remove(n)
            };
            if dice.random() {
                let landed = hang.land().await;
                trace::tell(|| format!("late: {landed:?}"));
            } else {
                hang.release();
            }
        }
    }

    /// Applies all calls that still hang.
    pub(super) async fn land(&self) {
        let hangs = std::mem::take(&mut *self.hangs.lock());
        for hang in hangs {
            let _refused = hang.land().await;
        }
    }
}

/// Whether this is the first attempt of a batch with changes. A refusal of a first attempt is
/// reliable: the store does not have the batch already.
fn is_first(call: &Call, seen: &mut HashSet<persistify::BatchId>) -> bool {
    let Some(batch) = &call.batch else {
        return false;
    };
    seen.insert(batch.id) && batch.maps.iter().any(|part| !part.changes.is_empty())
}

fn puts(call: &Call, key: &str) -> bool {
    let parts = call.batch.iter().flat_map(|batch| batch.maps.iter());
    let mut changes = parts.flat_map(|part| &part.changes);
    changes.any(|change| *change.key == *key && matches!(change.op, Op::Put { .. }))
}
