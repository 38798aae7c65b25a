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
    // Called inside the async block: a method that is not an `async fn` may panic
    // before it returns a future.
    let answer = async { call().await };
    tokio::select! {
        answer = AssertUnwindSafe(answer).catch_unwind() => answer.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unavailable, "the provider panicked"))
        }),
        () = clock.sleep(limit) => Err(Error::new(
            ErrorKind::Unavailable,
            format!("the provider did not answer within {limit:?} (commit_timeout)"),
        )),
    }
}
