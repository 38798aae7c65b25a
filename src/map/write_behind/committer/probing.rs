//! Waits before the next attempt on a store that is failing.

use std::time::Duration;

use futures_util::future::select_all;

use super::{Committer, news::News};
use crate::map::{shared::Shared, write_behind::proposal::Job};

/// Waits until a store that is down is to be tried again: as soon as a caller waits
/// or another map finds it healthy, and otherwise after the probe delay.
///
/// Never before the base delay has passed since the last attempt: all callers that
/// come until then share the next one, so even a thousand callers that ask again
/// and again do not hammer a dead store.
pub(crate) async fn wait_to_probe(committers: &mut [Committer<'_>]) {
    let (most, least) = committers[0].shared.options.retry.probe_delays();
    pause(committers, least, most, true).await;
}

/// Waits before the next attempt on a store that does not count as down yet.
pub(crate) async fn wait_to_retry(committers: &mut [Committer<'_>], delay: Duration) {
    let (_, least) = committers[0].shared.options.retry.probe_delays();
    pause(committers, least.min(delay), delay, false).await;
}

/// Waits for `delay`. Nothing shortens the first part, `least`. After it, a user's
/// request ends the wait; if the store is down, so does any waiting caller or
/// another map.
async fn pause(committers: &mut [Committer<'_>], least: Duration, delay: Duration, is_down: bool) {
    let clock = committers[0].shared.clock.clone();
    if is_down {
        let refused = committers
            .iter()
            .map(|c| Box::pin(refuse_to_stand_still(c)));
        tokio::select! {
            () = clock.sleep(least) => {}
            _ = select_all(refused) => {}
        }
    } else {
        clock.sleep(least).await;
    }
    let urgent = committers.iter_mut().map(|committer| {
        let Committer { shared, writer } = committer;
        Box::pin(urgency(shared, &mut writer.news, is_down))
    });
    tokio::select! {
        () = clock.sleep(delay.saturating_sub(least)) => {}
        _ = select_all(urgent) => {}
    }
}

/// Refuses commits that hold the writers of other maps: a store that has just
/// failed is not tried again yet, and other maps must not wait for it. Returns
/// when a rewind is to be resolved.
async fn refuse_to_stand_still(committer: &Committer<'_>) {
    let shared = committer.shared;
    loop {
        let woken = shared.wake.notified();
        if !shared.requests.lock().asked.resolutions.is_empty() {
            return;
        }
        if let Err(error) = committer.check_up() {
            shared.refuse_jobs(&error, Job::holds_others);
        }
        woken.await;
    }
}

/// Waits until the store is to be tried again at once: when a user requests it, or,
/// if the store is down, when a caller waits or another map finds it healthy.
async fn urgency(shared: &Shared, news: &mut News, is_down: bool) {
    let asked = async {
        loop {
            let woken = shared.wake.notified();
            if shared.requests.lock().is_urgent(is_down) {
                return;
            }
            woken.await;
        }
    };
    tokio::select! {
        () = asked => {}
        () = news.wait(&shared.options.retry, &shared.clock), if is_down => {}
    }
}
