//! Calls of the provider, with a time limit and protection against panics.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;

use crate::{
    clock::MapClock,
    error::{Error, ErrorKind, Result},
};

/// Calls a provider. A call that hangs or panics counts as failed with an
/// unknown outcome; the caller continues.
pub(crate) async fn answer_within<T, F>(
    limit: Duration,
    clock: &MapClock,
    call: impl FnOnce() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    within(limit, clock, caught(call)).await
}

/// Calls a provider. A panic is an error.
pub(crate) async fn caught<T, F>(call: impl FnOnce() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    // Called inside the async block: a method that is not an `async fn` may panic
    // before it returns a future.
    let answer = async { call().await };
    let answer = AssertUnwindSafe(answer).catch_unwind().await;
    answer.unwrap_or_else(|_| {
        let message = "the provider panicked";
        Err(Error::new(ErrorKind::Unavailable, message))
    })
}

/// Waits for an answer for a limited time, from now on.
pub(crate) async fn within<T>(
    limit: Duration,
    clock: &MapClock,
    answer: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        // An answer that is there is not too late: this task may have worked meanwhile.
        biased;
        answer = answer => answer,
        () = clock.sleep(limit) => Err(Error::new(
            ErrorKind::Unavailable,
            format!("the provider did not answer within {limit:?} (commit_timeout)"),
        )),
    }
}
