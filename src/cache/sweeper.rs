//! Takes expired entries out of memory and store, at a cost that follows the
//! number of expiries.

use std::sync::Arc;

use super::{
    deadlines::{millis, time},
    schedule::Schedule,
};
use crate::{clock::MapClock, map::lifetime::Expire};

/// How many keys are taken before others get their turn on the thread.
const BATCH: usize = 128;

/// Sleeps until the next deadline, sweeps, and ends with the map.
pub(crate) async fn sweep(schedule: Arc<Schedule>, clock: Arc<MapClock>, expire: Expire) {
    while !schedule.has_ended() {
        wait_for_next(&schedule, &clock).await;
        for key in schedule.due(millis(clock.now()), BATCH) {
            // Whether it has really expired is decided under the entry's lock:
            // it may have been written or read meanwhile, and is then put back.
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
