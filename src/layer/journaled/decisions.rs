//! The decisions of a person about a journal that is not sent any more.

use super::{
    Journaled,
    map_journal::MapJournal,
    owner::{Owner, Row},
};
use crate::{
    batch::WriterId,
    error::{Error, Result},
    name::MapName,
    provider::Provider,
};

impl<P: Provider> Journaled<P> {
    /// Returns the batches of a map that wait for the remote, as JSON Lines: one batch a line,
    /// the oldest first. Nothing is changed.
    ///
    /// # Errors
    ///
    /// `Invalid` if `map` is not the name of a map; `Corrupt` if the journal is damaged.
    pub async fn export(&self, map: impl AsRef<str>) -> Result<String> {
        let state = self.state(&MapName::parse(map)?).await?;
        state.with_file(|journal, _| journal.lines()).await
    }

    /// Drops the batches of a map that wait for the remote, and returns their number. This
    /// process becomes the owner of the map again with the next open or save.
    ///
    /// [Export](Self::export) them first: they are not kept. An open map still has their values
    /// in memory; reload it.
    ///
    /// # Errors
    ///
    /// Those of the disk. Either all batches are dropped or none.
    pub async fn discard(&self, map: impl AsRef<str>) -> Result<u64> {
        let state = self.state(&MapName::parse(map)?).await?;
        let mut row = state.row.lock().await;
        let discarded = state.with_file(MapJournal::discard).await?;
        *row = None;
        state.discarded();
        Ok(discarded)
    }

    /// Makes this process the owner of a map again, whichever process is the owner now, and sends
    /// the waiting batches. They overwrite the values that the remote has now.
    ///
    /// # Errors
    ///
    /// Those of the remote and of the disk. Batches that were not sent are kept; call it again.
    pub async fn force(&self, map: impl AsRef<str>) -> Result<()> {
        let state = self.state(&MapName::parse(map)?).await?;
        let mut row = state.row.lock().await;
        let found = state.in_time(Row::read(&*state.remote, &state.map)).await?;
        let token = WriterId::random();
        // The token is durable here before the remote has it, as when a map is opened.
        let prepared = state.with_file(move |journal, folder| {
            journal.tokens.latest = Some(token);
            journal.unclaim(folder)?;
            Ok(journal
                .pending
                .front()
                .map_or(journal.next, |first| first.number)
                - 1)
        });
        let owner = Owner {
            token,
            number: prepared.await?,
        };
        let put = found.put(&*state.remote, &state.map, owner, None);
        *row = Some(state.in_time(put).await?);
        state.owned(token).await;
        state.forced();
        let drained = state.drain_as(&mut row).await;
        drained.map_err(Error::nothing_applied)
    }
}
