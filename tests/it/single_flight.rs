//! One load for all concurrent callers of the same key.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::future::join_all;
use persistify::{Memory, PersistentMap};
use tokio::time::{Instant, sleep};

use crate::support::{HOUR, SECOND, open_caching};

const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, PartialEq)]
struct Down(usize);

/// A source that answers after a tick, and counts its calls.
#[derive(Clone, Default)]
struct Source(Arc<AtomicUsize>);

impl Source {
    fn asked(&self) -> usize {
        self.0.load(SeqCst)
    }

    async fn fail(self) -> Result<u32, Down> {
        let n = self.0.fetch_add(1, SeqCst) + 1;
        sleep(TICK).await;
        Err(Down(n))
    }

    async fn answer(self) -> Result<u32, Down> {
        self.0.fetch_add(1, SeqCst);
        sleep(TICK).await;
        Ok(7)
    }
}

async fn plain() -> PersistentMap<u32> {
    let map = PersistentMap::builder(Memory::new(), "map");
    map.open().await.unwrap()
}

/// The debug text of an error.
fn said(error: &impl Debug) -> String {
    format!("{error:?}")
}

/// Twenty callers of a loader that fails after 100 ms took 2 s: each waited for the earlier ones,
/// and then ran a loader that failed as well.
#[tokio::test(start_paused = true)]
async fn callers_who_waited_for_a_load_share_its_error() {
    let map = plain().await;
    let source = Source::default();
    let begun = Instant::now();
    let ask = |_| map.get_or_try_insert_with("a", || source.clone().fail());
    for answer in join_all((0..20).map(ask)).await {
        assert_eq!(said(&answer.unwrap_err()), "Down(1)");
    }
    assert_eq!((source.asked(), begun.elapsed()), (1, TICK));
    // A later caller runs its loader.
    let later = map.get_or_try_insert_with("a", || source.clone().fail());
    assert_eq!(said(&later.await.unwrap_err()), "Down(2)");
    let answered = map.get_or_try_insert_with("a", || source.clone().answer());
    assert_eq!(answered.await.unwrap(), 7);
    assert_eq!(map.get("a"), Some(7));
}

#[tokio::test(start_paused = true)]
async fn callers_of_a_caching_map_share_an_error_and_load_again_once_it_has_expired() {
    let map = open_caching::<u32>(Memory::new(), "map", |map| map.time_to_live(SECOND)).await;
    let source = Source::default();
    let failing = |_| map.get_or_try_insert_with("a", || source.clone().fail());
    let answers = join_all((0..20).map(failing)).await;
    assert!(answers.iter().all(Result::is_err) && source.asked() == 1);
    let ask = |_| map.get_or_try_insert_with("a", || source.clone().answer());
    for asked in 2..4 {
        let answers = join_all((0..20).map(ask)).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap() == 7));
        assert_eq!(source.asked(), asked);
        sleep(SECOND).await;
    }
}

/// Asserts that after the end of the first call, the next waiting call loads, and the others share
/// its result.
async fn the_next_one_loads(first: impl Future<Output = Result<u32, Down>> + Send + 'static) {
    let map: PersistentMap<u32> = plain().await;
    let loading = tokio::spawn({
        let map = map.clone();
        async move { map.get_or_try_insert_with("a", || first).await.is_ok() }
    });
    sleep(TICK / 2).await;
    let source = Source::default();
    let ask = |_| map.get_or_try_insert_with("a", || source.clone().fail());
    let waiting = join_all((0..20).map(ask));
    let (answers, ()) = tokio::join!(waiting, async {
        sleep(TICK / 4).await;
        loading.abort();
    });
    assert!(loading.await.is_err());
    for answer in answers {
        assert_eq!(said(&answer.unwrap_err()), "Down(1)");
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_loading_caller_is_cancelled_the_next_one_loads() {
    the_next_one_loads(async {
        sleep(HOUR).await;
        Ok(1)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn when_the_loader_panics_the_next_one_loads() {
    the_next_one_loads(async {
        sleep(TICK / 2 + TICK / 8).await;
        panic!("the loader panics on purpose")
    })
    .await;
}

/// Callers may expect errors of different types. Only callers with the same type share an error.
#[tokio::test(start_paused = true)]
async fn an_error_of_another_type_is_not_shared() {
    let map = plain().await;
    let source = Source::default();
    let ask = |_| map.get_or_try_insert_with("a", || source.clone().fail());
    let other = |_| {
        map.get_or_try_insert_with("a", || async {
            sleep(TICK).await;
            Err("other")
        })
    };
    let begun = Instant::now();
    let (downs, others) = tokio::join!(join_all((0..9).map(ask)), join_all((0..9).map(other)));
    assert!(downs.iter().all(|down| said(down).contains("Down(1)")));
    assert!(others.iter().all(|other| said(other).contains("other")));
    assert_eq!((source.asked(), begun.elapsed()), (1, 2 * TICK));
}

/// Different keys do not wait for each other.
#[tokio::test(start_paused = true)]
async fn loads_of_different_keys_run_at_the_same_time() {
    let map = plain().await;
    let source = Source::default();
    let begun = Instant::now();
    let ask = |n: usize| {
        let source = source.clone();
        let map = &map;
        async move {
            map.get_or_try_insert_with(n.to_string(), || source.answer())
                .await
        }
    };
    assert!(join_all((0..50).map(ask)).await.iter().all(Result::is_ok));
    assert_eq!((source.asked(), begun.elapsed()), (50, TICK));
}
