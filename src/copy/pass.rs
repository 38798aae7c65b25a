//! The copy of one map.

use std::time::SystemTime;

use futures_util::{TryStreamExt, future::BoxFuture};
use tokio_retry::strategy::{ExponentialBackoff, jitter};

use super::sum::Sums;
use crate::{
    batch::{Batch, BatchId, Change, Committed, MapBatch, WriterId},
    error::{Error, ErrorKind, Result},
    load::{Load, Wanted},
    name::MapName,
    provider::Provider,
    record::{Record, Revision},
};

/// A batch is committed once it has this many records or bytes.
const MAX_BATCH: usize = 10_000;
const MAX_BATCH_BYTES: u64 = 8 << 20;

/// The maximum number of attempts of a call, including the first.
const ATTEMPTS: usize = 5;

/// The copy of one map.
pub(super) struct Pass<'a> {
    from: &'a dyn Provider,
    to: &'a dyn Provider,
    map: &'a MapName,
    /// The digests of the records that were in the target at the beginning.
    there: Sums,
    writer: WriterId,
    sequence: u64,
    after: Revision,
    written: u64,
    bytes: u64,
}

impl<'a> Pass<'a> {
    /// Reads the records that are already in the target.
    ///
    /// # Errors
    ///
    /// `Invalid` if the target has keys that the source does not have: then it is
    /// not the result of an earlier copy.
    pub(super) async fn begin(
        from: &'a dyn Provider,
        to: &'a dyn Provider,
        map: &'a MapName,
    ) -> Result<Self> {
        let found = load(to, map, Wanted::All).await?;
        let after = found.horizon;
        let there = Sums::of(found).await?;
        if !there.is_empty() {
            let others = there.keys_without(load(from, map, Wanted::All).await?);
            let others = others.await?;
            if !others.is_empty() {
                return Err(not_a_copy(map).on_keys(others));
            }
        }
        Ok(Self {
            from,
            to,
            map,
            there,
            writer: WriterId::random(),
            sequence: 0,
            after,
            written: 0,
            bytes: 0,
        })
    }

    /// Writes the records that are missing or differ in the target. Returns their
    /// number and their size in bytes.
    pub(super) async fn run(mut self, report: impl Fn(u64)) -> Result<(u64, u64)> {
        let mut load = load(self.from, self.map, Wanted::All).await?;
        let (mut seen, mut changes, mut bytes) = (0, Vec::new(), 0);
        while let Some(page) = load.pages.try_next().await? {
            for record in page {
                seen += 1;
                if self.there.has(&record) {
                    continue;
                }
                bytes += weight(&record);
                changes.extend(change(record));
                if changes.len() >= MAX_BATCH || bytes >= MAX_BATCH_BYTES {
                    self.commit(std::mem::take(&mut changes)).await?;
                    self.bytes += std::mem::take(&mut bytes);
                }
            }
            report(seen);
            // A provider that is always ready must not monopolise the thread.
            tokio::task::yield_now().await;
        }
        if !changes.is_empty() {
            self.commit(changes).await?;
        }
        Ok((self.written, self.bytes + bytes))
    }

    async fn commit(&mut self, changes: Vec<Change>) -> Result<()> {
        self.written += changes.len() as u64;
        self.sequence += 1;
        let id = BatchId::new(self.writer, self.sequence);
        let part = MapBatch::new(self.map.clone(), changes);
        let batch = Batch::new(id, self.after, SystemTime::now(), [part]).divisible(true);
        // Each attempt sends the identical batch, so it is applied once, even if an
        // earlier attempt took effect or lands late.
        let committed: Committed = patiently(|| self.to.commit(&batch)).await?;
        self.after = self.after.max(committed.revision.unwrap_or_default());
        Ok(())
    }
}

fn change(record: Record) -> Option<Change> {
    let payload = record.value?;
    // The lifetime of an entry that expires counts from its write, not from the
    // copy. For other entries the target records the time of the copy.
    let written = record.updated_at;
    let written = written.filter(|at| Some(*at) <= record.expires_at);
    Some(Change::put(record.key, payload, record.expires_at).written_at(written))
}

fn weight(record: &Record) -> u64 {
    let payload = record.value.as_ref().map_or(0, |value| value.bytes.len());
    (record.key.len() + payload) as u64
}

fn not_a_copy(map: &MapName) -> Error {
    let message = "the target's map has keys that the source's map does not have, so it is not \
                   a copy of it; nothing was written; clear it, or copy to another provider";
    Error::new(ErrorKind::Invalid, message).on_map(map)
}

/// Loads, with retries.
pub(super) async fn load<'a>(
    provider: &'a dyn Provider,
    map: &'a MapName,
    wanted: Wanted,
) -> Result<Load<'a>> {
    patiently(|| provider.load(map, wanted.clone())).await
}

/// Retries a call while it fails as `Unavailable` or with an unknown outcome.
pub(super) async fn patiently<'a, R>(ask: impl Fn() -> BoxFuture<'a, Result<R>>) -> Result<R> {
    // The delays are factor × 2^n for n = 1, 2, …: 100 ms, 200 ms, …
    let delays = ExponentialBackoff::from_millis(2).factor(50).map(jitter);
    for delay in delays.take(ATTEMPTS - 1) {
        match ask().await {
            Err(error) if may_try_again(&error) => tokio::time::sleep(delay).await,
            answer => return answer,
        }
    }
    ask().await
}

fn may_try_again(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable || error.may_have_applied()
}
