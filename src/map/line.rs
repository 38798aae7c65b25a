//! How a map reaches its store.

use std::{sync::Arc, time::Duration};

use super::{calls::answer_within, retry::RetryPolicy};
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
    pub(super) async fn commit(&self, batch: &Batch) -> Result<Committed> {
        answer_within(self.limit, &self.clock, || self.provider.commit(batch)).await
    }
}
