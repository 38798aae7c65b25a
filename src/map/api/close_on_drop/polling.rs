//! Whether this thread may block.

use std::task::{Context, Poll, Waker};

use tokio::task::coop::poll_proceed;

/// Whether this thread is polling futures for a tokio runtime: if it blocked, all
/// tasks that the runtime should run on it would wait.
///
/// Threads of `spawn_blocking` and `block_in_place` also have a current runtime,
/// but may block. The difference is the cooperative budget, which tokio gives to
/// each poll and to nothing else: this function spends it and gives it back. (After
/// a `block_in_place` outside of a task, the rest of that poll has no budget.)
pub(crate) fn is_polling() -> bool {
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(before) = poll_proceed(&mut context) else {
        return true;
    };
    let mut ends = || match poll_proceed(&mut context) {
        Poll::Ready(spent) => {
            spent.made_progress();
            false
        }
        Poll::Pending => true,
    };
    // A budget has at most 255 units.
    let is_limited = (0..=u8::MAX).any(|_| ends());
    // Restores the budget.
    drop(before);
    is_limited
}

#[cfg(test)]
mod tests {
    use tokio::{
        runtime::Builder,
        task::{LocalSet, block_in_place, spawn_blocking},
    };

    use super::*;

    async fn in_all_ways() {
        assert!(is_polling());
        assert!(is_polling(), "the budget was not given back");
        assert!(tokio::spawn(async { is_polling() }).await.unwrap());
        assert!(!spawn_blocking(is_polling).await.unwrap());
        assert!(!std::thread::spawn(is_polling).join().unwrap());
    }

    #[test]
    fn only_a_thread_that_polls_futures_may_not_block() {
        assert!(!is_polling());
        let own = Builder::new_current_thread().build().unwrap();
        own.block_on(in_all_ways());
        LocalSet::new().block_on(&own, async { assert!(is_polling()) });
        let many = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        many.block_on(in_all_ways());
        many.block_on(async {
            tokio::spawn(in_all_ways()).await.unwrap();
            let task = tokio::spawn(async { (block_in_place(is_polling), is_polling()) });
            assert_eq!(task.await.unwrap(), (false, true));
        });
        let _context = many.enter();
        assert!(!is_polling());
    }
}
