//! Whether this thread may block.

use std::task::{Context, Poll, Waker};

use tokio::task::coop::poll_proceed;

/// Whether this thread polls futures for a tokio runtime just now: if it blocked,
/// all that this runtime should do on it would wait.
///
/// The threads of `spawn_blocking` and of `block_in_place` know the runtime as
/// well, and may block. What tells them apart is the budget that tokio gives to
/// each poll, and to nothing else: here it is tried out, and given back. (After a
/// `block_in_place` outside of a task, the rest of that poll has none.)
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
    // Sets the budget to what it was.
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
    fn threads_that_may_block_are_told_from_those_that_may_not() {
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
