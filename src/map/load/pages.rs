//! Reads the pages of a load.

use futures_util::{TryStreamExt, future::join};

use crate::{error::Result, load::Load, map::shared::Shared, record::Record};

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
            let next = self.call(|| load.pages.try_next());
            let (next, taken) = join(next, async { take(records) }).await;
            taken?;
            page = next?;
            // A provider that is always ready must not starve other tasks.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
