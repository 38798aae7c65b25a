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
    /// Those written by commits after this revision. Keys deleted since are
    /// among them (without a value) where
    /// [`Capabilities::deletions`](crate::Capabilities::deletions) says so.
    #[non_exhaustive]
    Changed {
        /// The last revision that is known already.
        after: Revision,
    },
}

impl Wanted {
    /// The first `limit` records after that key.
    pub fn page(after: Option<Arc<str>>, limit: usize) -> Self {
        Self::Page { after, limit }
    }

    /// What was written after that revision.
    pub fn changed(after: Revision) -> Self {
        Self::Changed { after }
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
    /// What the pages err with, for a [`Wanted::Page`], which has to read and
    /// sort them all; the other kinds are narrowed as they stream.
    pub async fn narrowed(mut self, wanted: &Wanted) -> Result<Load<'a>> {
        match wanted {
            Wanted::All => Ok(self),
            Wanted::Keys(keys) => {
                let keys: HashSet<Arc<str>> = keys.iter().cloned().collect();
                Ok(self.keep(move |record| keys.contains(&record.key)))
            }
            Wanted::Changed { after } => {
                let after = *after;
                Ok(self.keep(move |record| record.revision > after))
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
