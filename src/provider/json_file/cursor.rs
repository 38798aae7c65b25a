//! The position of a load in an open map.

use std::{
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use super::{
    files::Folder,
    index::{Index, Page},
    store::Store,
};
use crate::{error::Result, load::Wanted, record::Record};

/// Selects the wanted records page by page, in the order of the keys. Each key occurs once,
/// even if the map changes between two pages.
#[derive(Debug)]
pub(super) struct Cursor {
    wanted: Wanted,
    after: Option<Arc<str>>,
    left: usize,
}

impl Cursor {
    pub(super) fn new(wanted: Wanted) -> Self {
        let (after, left) = match &wanted {
            Wanted::Page { after, limit } => (after.clone(), *limit),
            _ => (None, usize::MAX),
        };
        Self {
            wanted: in_order(wanted),
            after,
            left,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// The next page; empty at the end.
    pub(super) fn next(&mut self, folder: &Folder, store: &Store) -> Result<Vec<Record>> {
        let Page { entries, is_last } = self.select(&store.index);
        let records = store.records(folder, &entries)?;
        self.left = if is_last {
            0
        } else {
            self.left - records.len()
        };
        self.after = records.last().map(|record| record.key.clone());
        Ok(records)
    }

    fn select<'a>(&self, index: &'a Index) -> Page<'a> {
        let from = self.after.clone().map_or(Unbounded, Excluded);
        let rest = index.range::<Arc<str>, _>((from, Unbounded));
        let limit = self.left;
        match &self.wanted {
            Wanted::Keys(keys) => {
                let start = keys.partition_point(|key| Some(key) <= self.after.as_ref());
                let found = keys[start..]
                    .iter()
                    .filter_map(|key| index.get_key_value(key));
                Page::next(&mut found.take(limit).peekable())
            }
            _ => Page::next(&mut rest.take(limit).peekable()),
        }
    }
}

/// Sorts the wanted keys, and removes duplicates.
fn in_order(wanted: Wanted) -> Wanted {
    match wanted {
        Wanted::Keys(keys) => {
            let mut keys = keys.to_vec();
            keys.sort_unstable();
            keys.dedup();
            Wanted::Keys(keys.into())
        }
        other => other,
    }
}
