//! What is asked of a provider, and the stream that answers.

use std::{collections::HashSet, fmt, future::ready, sync::Arc};

use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use crate::{
    error::Result,
    incarnation::Incarnation,
    record::{Record, Revision},
};

/// How many records a provider best hands over at a time.
pub const PAGE_RECORDS: usize = 1_000;

/// Which records of a map to load.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted {
    /// All of them, in any order.
    All,
    /// Those with these keys, in any order; a key that is not stored is left
    /// out.
    Keys(Arc<[Arc<str>]>),
    /// The first `limit` whose key is greater than `after`, in the order of
    /// the keys' bytes.
    #[non_exhaustive]
    Page {
        /// Where the page before this one ended; `None` for the first page.
        after: Option<Arc<str>>,
        /// How many records at the most.
        limit: usize,
    },
    /// Those written by commits after this revision, in the order of their
    /// revisions. A commit is never cut in two: the answer ends with the commit that
    /// reaches the limit, and its [horizon](Load::horizon) is that commit.
    ///
    /// Where [`Capabilities::deletions`](crate::Capabilities::deletions) says so,
    /// keys that were deleted since are among them, as
    /// [tombstones](Record::deletion), and a clear is told as
    /// [`Load::cleared`]. Tombstones are kept for a time only: see
    /// [`Load::pruned_to`].
    #[non_exhaustive]
    Changed {
        /// The last revision that is known already.
        after: Revision,
        /// About how many records at the most.
        limit: usize,
    },
}

impl Wanted {
    /// The first `limit` records after that key.
    pub fn page(after: Option<Arc<str>>, limit: usize) -> Self {
        Self::Page { after, limit }
    }

    /// Everything that was written after that revision.
    pub fn changed(after: Revision) -> Self {
        Self::some_changed(after, usize::MAX)
    }

    /// The first `limit` records that were written after that revision.
    pub fn some_changed(after: Revision, limit: usize) -> Self {
        Self::Changed { after, limit }
    }
}

/// The answer to a load: what is known at once, and the records in pages.
#[non_exhaustive]
pub struct Load<'a> {
    /// Every commit up to this revision is in the pages; what came later may
    /// or may not be.
    pub horizon: Revision,
    /// The incarnation of the store; `None` if it keeps none.
    pub incarnation: Option<Incarnation>,
    /// Of a load of [changes](Wanted::Changed): the last commit that cleared the map,
    /// if it came after the known revision. All entries of earlier commits are gone;
    /// there are no tombstones for them.
    pub cleared: Option<Revision>,
    /// Of a load of [changes](Wanted::Changed): the last commit whose tombstones are
    /// no longer kept, if it came after the known revision. Then the store cannot
    /// tell what was deleted since, and no records come up: load
    /// [all](Wanted::All) of them instead.
    pub pruned_to: Option<Revision>,
    /// The shape that all values were written in, where the store knows that
    /// there is only one. Each record carries its own number all the same.
    pub schema: Option<u32>,
    /// About how many records are to come, where that is cheap to know.
    pub total_hint: Option<u64>,
    /// The records. A key comes up once. After an error nothing follows.
    pub pages: BoxStream<'a, Result<Vec<Record>>>,
}

impl<'a> Load<'a> {
    /// A load of these pages.
    pub fn new(horizon: Revision, pages: BoxStream<'a, Result<Vec<Record>>>) -> Self {
        Self {
            horizon,
            incarnation: None,
            cleared: None,
            pruned_to: None,
            schema: None,
            total_hint: None,
            pages,
        }
    }

    /// A load of records that are in memory already.
    pub fn of(horizon: Revision, records: Vec<Record>) -> Self {
        let total = records.len() as u64;
        let mut records = records.into_iter();
        let pages = std::iter::from_fn(move || {
            let page: Vec<_> = records.by_ref().take(PAGE_RECORDS).collect();
            (!page.is_empty()).then_some(Ok(page))
        });
        Self::new(horizon, stream::iter(pages).boxed()).with_total_hint(Some(total))
    }

    /// The same load, of a store in this incarnation.
    #[must_use]
    pub fn with_incarnation(mut self, incarnation: Option<Incarnation>) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// A load of changes after that revision.
    ///
    /// `records` are all that were written after it, in any order; tombstones may be
    /// among them. `horizon` is the last commit of the store.
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

    /// The same load, after that clear.
    #[must_use]
    pub fn with_cleared(mut self, cleared: Option<Revision>) -> Self {
        self.cleared = cleared;
        self
    }

    /// The same load, of a store that has no tombstones up to that commit.
    #[must_use]
    pub fn with_pruned_to(mut self, pruned_to: Option<Revision>) -> Self {
        self.pruned_to = pruned_to;
        self
    }

    /// The same load, with the shape of its values.
    #[must_use]
    pub fn with_schema(mut self, schema: Option<u32>) -> Self {
        self.schema = schema;
        self
    }

    /// The same load, with the number of records to expect.
    #[must_use]
    pub fn with_total_hint(mut self, total: Option<u64>) -> Self {
        self.total_hint = total;
        self
    }

    /// Turns a load of [all](Wanted::All) records into one of what is wanted,
    /// for stores that have no quicker way.
    ///
    /// # Errors
    ///
    /// What the pages err with, for a [`Wanted::Page`] and [`Wanted::Changed`],
    /// which have to read and sort them all; keys are picked as they stream.
    pub async fn narrowed(mut self, wanted: &Wanted) -> Result<Load<'a>> {
        match wanted {
            Wanted::All => Ok(self),
            Wanted::Keys(keys) => {
                let keys: HashSet<Arc<str>> = keys.iter().cloned().collect();
                Ok(self.keep(move |record| keys.contains(&record.key)))
            }
            Wanted::Changed { after, limit } => {
                let (horizon, incarnation, schema) = (self.horizon, self.incarnation, self.schema);
                let records = self.into_records().await?;
                Ok(Load::of_changes(*after, *limit, horizon, records)
                    .with_incarnation(incarnation)
                    .with_schema(schema))
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
                    .with_schema(self.schema))
            }
        }
    }

    /// Sorts a load of [changes](Wanted::Changed) by revision and applies its limit; others
    /// stay as they are. It holds all of these changes in memory.
    ///
    /// # Errors
    ///
    /// What the pages err with.
    pub async fn in_revision_order(self, wanted: &Wanted) -> Result<Load<'a>> {
        match wanted {
            Wanted::Changed { .. } => self.narrowed(wanted).await,
            Wanted::All | Wanted::Keys(_) | Wanted::Page { .. } => Ok(self),
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

    /// All records, in one piece.
    ///
    /// # Errors
    ///
    /// What the pages err with.
    pub async fn into_records(self) -> Result<Vec<Record>> {
        self.pages.try_concat().await
    }
}

impl fmt::Debug for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("horizon", &self.horizon)
            .field("incarnation", &self.incarnation)
            .field("schema", &self.schema)
            .field("total_hint", &self.total_hint)
            .finish_non_exhaustive()
    }
}
