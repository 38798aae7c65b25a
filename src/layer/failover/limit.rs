//! Calls of a provider with a time limit.

use std::time::Duration;

use tokio::time::timeout;

use crate::error::{Error, ErrorKind, Result};

/// Calls a provider, for a limited time.
pub(super) async fn within<T>(limit: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        let message = format!("the provider did not answer within {limit:?} (failover: timeout)");
        Err(Error::new(ErrorKind::Unavailable, message))
    })
}
