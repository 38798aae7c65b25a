//! The sweeper: removes expired entries from memory and store. Its cost is
//! proportional to the number of expiries.

use std::sync::Arc;

use super::{
    deadlines::{millis, time},
    schedule::Schedule,
};
use crate::{clock::MapClock, map::lifetime::Expire};

/// How many keys are swept between two yields to other tasks.
const BATCH: usize = 128;

/// Sleeps until the next deadline and sweeps; ends with the map.
pub(crate) async fn sweep(schedule: Arc<Schedule>, clock: Arc<MapClock>, expire: Expire) {
    while !schedule.has_ended() {
        wait_for_next(&schedule, &clock).await;
        for key in schedule.due(millis(clock.now()), BATCH) {
            // The decision is made under the entry's lock: an entry written or read
            // meanwhile has not expired, and is scheduled again.
            if expire(&key).is_none() {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn wait_for_next(schedule: &Schedule, clock: &MapClock) {
    let moved = schedule.moved();
    match schedule.next().and_then(time) {
        None => moved.await,
        Some(deadline) => tokio::select! {
            () = moved => {}
            () = clock.sleep_until(deadline) => {}
        },
    }
}
