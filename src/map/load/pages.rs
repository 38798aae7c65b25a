//! Reads the pages of a load.

use std::{pin::pin, task::Poll};

use futures_util::{TryStreamExt, poll};

use crate::{
    error::Result,
    load::Load,
    map::{
        shared::Shared,
        write_behind::committer::calls::{caught, within},
    },
    record::Record,
};

impl Shared {
    /// Reads the pages of a load. The store reads the next page while `take` decodes one.
    ///
    /// # Errors
    ///
    /// The first error of the store or of `take`, in the order of the pages.
    pub(super) async fn read_pages(
        &self,
        load: &mut Load<'_>,
        mut take: impl FnMut(Vec<Record>) -> Result<()>,
    ) -> Result<()> {
        let mut page = self.call(|| load.pages.try_next()).await?;
        while let Some(records) = page {
            // The store is asked first, and then works on another thread.
            let mut next = pin!(caught(|| load.pages.try_next()));
            let started = poll!(next.as_mut());
            take(records)?;
            // The time that `take` needed is not the store's.
            let next = match started {
                Poll::Ready(next) => next,
                Poll::Pending => within(self.options.commit_timeout, &self.clock, next).await,
            };
            page = next.map_err(|error| error.on_map(&self.name))?;
            // A provider that is always ready must not starve other tasks.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
