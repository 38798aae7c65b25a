//! Checksums over the content of a map.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    codec,
    error::Result,
    load::Load,
    record::{Payload, Record},
};

/// The number of records and a checksum, both independent of the order of the
/// records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) records: u64,
    checksum: u128,
}

impl Sum {
    pub(super) async fn of(mut load: Load<'_>) -> Result<Self> {
        let mut sum = Self::default();
        while let Some(page) = load.pages.try_next().await? {
            for digest in page.iter().filter_map(digest_of) {
                sum.records += 1;
                sum.checksum = sum.checksum.wrapping_add(digest);
            }
            tokio::task::yield_now().await;
        }
        Ok(sum)
    }
}

/// The digest of each record.
#[derive(Default)]
pub(super) struct Sums(HashMap<Arc<str>, u128>);

impl Sums {
    pub(super) async fn of(mut load: Load<'_>) -> Result<Self> {
        let mut sums = HashMap::new();
        while let Some(page) = load.pages.try_next().await? {
            let digests = page.into_iter();
            let digests =
                digests.filter_map(|record| Some((record.key.clone(), digest_of(&record)?)));
            sums.extend(digests);
            tokio::task::yield_now().await;
        }
        Ok(Self(sums))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, record: &Record) -> bool {
        self.0.get(&record.key).copied() == digest_of(record)
    }

    /// The keys in this set that are not in the load, sorted.
    pub(super) async fn keys_without(&self, mut load: Load<'_>) -> Result<Vec<Arc<str>>> {
        let mut left: HashMap<_, _> = self.0.iter().collect();
        while let Some(page) = load.pages.try_next().await? {
            for record in page.iter().filter(|record| record.value.is_some()) {
                left.remove(&record.key);
            }
            tokio::task::yield_now().await;
        }
        let mut keys: Vec<_> = left.into_keys().cloned().collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// The keys whose records differ between this set and the load, sorted.
    pub(super) async fn differing(&mut self, mut load: Load<'_>) -> Result<Vec<Arc<str>>> {
        let mut keys = Vec::new();
        while let Some(page) = load.pages.try_next().await? {
            for record in page {
                let here = self.0.remove(&record.key);
                if here != digest_of(&record) {
                    keys.push(record.key);
                }
            }
            tokio::task::yield_now().await;
        }
        keys.extend(self.0.drain().map(|(key, _)| key));
        keys.sort_unstable();
        Ok(keys)
    }
}

/// The digest of the parts of a record that a copy preserves; `None` for a
/// tombstone.
fn digest_of(record: &Record) -> Option<u128> {
    let payload: &Payload = record.value.as_ref()?;
    let mut bytes = Vec::with_capacity(record.key.len() + 64);
    bytes.extend((record.key.len() as u64).to_le_bytes());
    bytes.extend(record.key.as_bytes());
    bytes.extend(payload.schema.to_le_bytes());
    bytes.extend(record.expires_at.map_or(i128::MIN, millis).to_le_bytes());
    bytes.extend(codec::digest(payload).to_le_bytes());
    Some(xxh3_128(&bytes))
}

/// Stores keep times in milliseconds, rounded down.
fn millis(at: SystemTime) -> i128 {
    let whole = |distance: Duration| i128::try_from(distance.as_millis()).unwrap_or(i128::MAX);
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => whole(after),
        Err(before) => -whole(before.duration() + Duration::from_nanos(999_999)),
    }
}
