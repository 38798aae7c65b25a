//! How a map reaches its store.

use std::{sync::Arc, time::Duration};

use tracing::Instrument;

use super::{calls::answer_within, retry::RetryPolicy, spans};
use crate::{
    batch::{Batch, Committed},
    clock::MapClock,
    error::Result,
    provider::Provider,
};

/// How to reach a store.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) clock: Arc<MapClock>,
    pub(super) retry: RetryPolicy,
    pub(super) limit: Duration,
}

impl Line {
    /// The first attempt is number 1.
    pub(super) async fn commit(&self, batch: &Batch, attempt: u32) -> Result<Committed> {
        let span = spans::commit(batch, &*self.provider, attempt);
        let answer = answer_within(self.limit, &self.clock, || self.provider.commit(batch));
        answer.instrument(span).await
    }
}
