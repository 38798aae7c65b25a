//! Loads: the requested records, and the stream of pages that a provider returns.

use std::{collections::HashSet, fmt, future::ready, sync::Arc, time::SystemTime};

use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use crate::{
    error::Result,
    incarnation::Incarnation,
    record::{Record, Revision},
};

/// The recommended number of records in a page.
pub const PAGE_RECORDS: usize = 1_000;

/// A page of large values ends early, so that its reader holds little at a time.
const PAGE_BYTES: usize = 1024 * 1024;

/// Which records of a map to load.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted {
    /// All records, in any order.
    All,
    /// The records with these keys, in any order. Keys without a record are left
    /// out.
    Keys(Arc<[Arc<str>]>),
    /// The first `limit` records whose key is greater than `after`, ordered by the
    /// bytes of their keys.
    #[non_exhaustive]
    Page {
        /// The last key of the previous page; `None` for the first page.
        after: Option<Arc<str>>,
        /// The maximum number of records.
        limit: usize,
    },
    /// The records written by commits after this revision, ordered by revision. A
    /// commit is never split: the load ends with the commit that reaches the limit,
    /// and its [horizon](Load::horizon) is that commit.
    ///
    /// If [`Capabilities::deletions`](crate::Capabilities::deletions) is true, the
    /// records include [tombstones](Record::deletion) of the keys deleted since, and
    /// [`Load::cleared`] reports a clear. Tombstones are pruned after some time: see
    /// [`Load::pruned_to`].
    #[non_exhaustive]
    Changed {
        /// The last revision that the caller knows.
        after: Revision,
        /// The number of records after which the load ends, at the end of a commit.
        limit: usize,
    },
}

impl Wanted {
    /// Requests the first `limit` records whose key is greater than `after`.
    pub fn page(after: Option<Arc<str>>, limit: usize) -> Self {
        Self::Page { after, limit }
    }

    /// Requests all records written after a revision.
    pub fn changed(after: Revision) -> Self {
        Self::some_changed(after, usize::MAX)
    }

    /// Requests about the first `limit` records written after a revision.
    pub fn some_changed(after: Revision, limit: usize) -> Self {
        Self::Changed { after, limit }
    }
}

/// The result of a load: metadata of the store, and a stream of pages of records.
#[non_exhaustive]
pub struct Load<'a> {
    /// The pages contain every commit up to this revision. Later commits may be
    /// included.
    pub horizon: Revision,
    /// The incarnation of the store; `None` if the store keeps none.
    pub incarnation: Option<Incarnation>,
    /// Set in a load of [changes](Wanted::Changed): the last commit that cleared the
    /// map, if it came after the known revision. All entries of earlier commits are
    /// removed, without tombstones.
    pub cleared: Option<Revision>,
    /// Set in a load of [changes](Wanted::Changed): the last commit whose tombstones
    /// are pruned, if it came after the known revision. The store then cannot tell
    /// which keys were deleted since, and returns no records: load
    /// [all](Wanted::All) records instead.
    pub pruned_to: Option<Revision>,
    /// Set if the records come from a copy of the store that may lag behind, because the
    /// store itself is down: the copy is known to have all commits up to this time. Records
    /// of a copy may have revision [zero](Revision::ZERO). A map that is opened from a copy
    /// is [`Degraded`](crate::Health::Degraded).
    pub copied_at: Option<SystemTime>,
    /// An estimate of the number of records, if it is cheap to obtain.
    pub total_hint: Option<u64>,
    /// The records. Each key occurs once. The stream ends after an error.
    pub pages: BoxStream<'a, Result<Vec<Record>>>,
}

impl<'a> Load<'a> {
    /// Creates a load from a stream of pages.
    pub fn new(horizon: Revision, pages: BoxStream<'a, Result<Vec<Record>>>) -> Self {
        Self {
            horizon,
            incarnation: None,
            cleared: None,
            pruned_to: None,
            copied_at: None,
            total_hint: None,
            pages,
        }
    }

    /// Creates a load from records in memory.
    pub fn of(horizon: Revision, records: Vec<Record>) -> Self {
        let total = records.len() as u64;
        let mut records = records.into_iter();
        let pages = std::iter::from_fn(move || {
            let (mut page, mut bytes) = (Vec::new(), 0);
            while page.len() < PAGE_RECORDS && bytes < PAGE_BYTES {
                let Some(record) = records.next() else { break };
                bytes += record.value.as_ref().map_or(0, |value| value.bytes.len());
                page.push(record);
            }
            (!page.is_empty()).then_some(Ok(page))
        });
        Self::new(horizon, stream::iter(pages).boxed()).with_total_hint(Some(total))
    }

    /// Sets the incarnation of the store.
    #[must_use]
    pub fn with_incarnation(mut self, incarnation: Option<Incarnation>) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// Creates a load of the changes after a revision, from records in memory.
    ///
    /// `records` contains all records and tombstones written after that revision, in any
    /// order; older ones are ignored. `horizon` is the last commit of the store.
    pub fn of_changes(
        after: Revision,
        limit: usize,
        horizon: Revision,
        mut records: Vec<Record>,
    ) -> Self {
        records.retain(|record| record.revision > after);
        records.sort_by_key(|record| record.revision);
        let last = limit.checked_sub(1).and_then(|last| records.get(last));
        let end = match last {
            Some(record) => record.revision,
            None if limit == 0 => after,
            None => horizon,
        };
        let count = records.partition_point(|record| record.revision <= end);
        let is_cut = count < records.len() || limit == 0;
        records.truncate(count);
        Self::of(if is_cut { end } else { horizon }, records)
    }

    /// Sets the commit that last cleared the map.
    #[must_use]
    pub fn with_cleared(mut self, cleared: Option<Revision>) -> Self {
        self.cleared = cleared;
        self
    }

    /// Sets the last commit whose tombstones are pruned.
    #[must_use]
    pub fn with_pruned_to(mut self, pruned_to: Option<Revision>) -> Self {
        self.pruned_to = pruned_to;
        self
    }

    /// Sets the time up to which the copy that the records come from is known to be
    /// complete.
    #[must_use]
    pub fn with_copied_at(mut self, copied_at: Option<SystemTime>) -> Self {
        self.copied_at = copied_at;
        self
    }

    /// Sets the estimate of the number of records.
    #[must_use]
    pub fn with_total_hint(mut self, total: Option<u64>) -> Self {
        self.total_hint = total;
        self
    }

    /// Narrows a load of [all](Wanted::All) records to the wanted ones, for stores
    /// that cannot select them more efficiently.
    ///
    /// [`Wanted::Page`] and [`Wanted::Changed`] read and sort all records; keys are
    /// filtered as they stream.
    ///
    /// # Errors
    ///
    /// For a [`Wanted::Page`] or [`Wanted::Changed`], the errors of the pages.
    pub async fn narrowed(mut self, wanted: &Wanted) -> Result<Load<'a>> {
        match wanted {
            Wanted::All => Ok(self),
            Wanted::Keys(keys) => {
                let keys: HashSet<Arc<str>> = keys.iter().cloned().collect();
                Ok(self.keep(move |record| keys.contains(&record.key)))
            }
            Wanted::Changed { after, limit } => {
                let (horizon, incarnation) = (self.horizon, self.incarnation);
                let copied_at = self.copied_at;
                let records = self.into_records().await?;
                let changes = Load::of_changes(*after, *limit, horizon, records);
                Ok(changes
                    .with_incarnation(incarnation)
                    .with_copied_at(copied_at))
            }
            Wanted::Page { after, limit } => {
                let horizon = self.horizon;
                let mut records: Vec<Record> = Vec::new();
                while let Some(page) = self.pages.try_next().await? {
                    records.extend(page.into_iter().filter(|r| Some(&r.key) > after.as_ref()));
                }
                records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
                records.truncate(*limit);
                Ok(Load::of(horizon, records)
                    .with_incarnation(self.incarnation)
                    .with_copied_at(self.copied_at))
            }
        }
    }

    fn keep(mut self, wanted: impl Fn(&Record) -> bool + Send + 'a) -> Self {
        self.total_hint = None;
        self.pages = self
            .pages
            .map_ok(move |mut page| {
                page.retain(&wanted);
                page
            })
            .try_filter(|page| ready(!page.is_empty()))
            .boxed();
        self
    }

    /// Collects all records into a `Vec`.
    ///
    /// # Errors
    ///
    /// The error of the first page that fails.
    pub async fn into_records(self) -> Result<Vec<Record>> {
        self.pages.try_concat().await
    }
}

impl fmt::Debug for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("horizon", &self.horizon)
            .field("incarnation", &self.incarnation)
            .field("copied_at", &self.copied_at)
            .field("total_hint", &self.total_hint)
            .finish_non_exhaustive()
    }
}
