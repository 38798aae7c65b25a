//! Calls of the provider, whatever it does.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;

use crate::{
    clock::MapClock,
    error::{Error, ErrorKind, Result},
};

/// Calls a provider. One that hangs or panics is one that failed, with an
/// outcome that is not known: whoever called goes on.
pub(crate) async fn answer_within<T, F>(
    limit: Duration,
    clock: &MapClock,
    call: impl FnOnce() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    // Called in here: what is no `async fn` may panic before it returns a
    // future.
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
