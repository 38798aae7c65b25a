//! A measured call.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::meters::{MapMeters, Meters, Outcome, Timer};
use crate::{
    batch::{Batch, MapBatch},
    error::{Error, Result},
    name::MapName,
    record::Record,
    trace::PROVIDER,
};

/// A call on its way to the store. It is recorded when this is dropped, even if that
/// happens because the future of the call is dropped.
pub(super) struct Measurement<'a> {
    meters: &'a Meters,
    kind: Kind<'a>,
    /// One for each map of the call.
    maps: Vec<Arc<MapMeters>>,
    began: Instant,
    outcome: Outcome,
}

enum Kind<'a> {
    Commit(&'a Batch),
    /// The number and the size of the records that were read so far.
    Load {
        records: usize,
        bytes: usize,
    },
    Ping,
}

impl<'a> Measurement<'a> {
    pub(super) fn commit(meters: &'a Meters, batch: &'a Batch) -> Self {
        let maps = batch.maps.iter().map(|part| meters.of(&part.map));
        Self::begin(meters, Kind::Commit(batch), maps.collect())
    }

    pub(super) fn load(meters: &'a Meters, map: &MapName) -> Self {
        let (records, bytes) = (0, 0);
        Self::begin(meters, Kind::Load { records, bytes }, vec![meters.of(map)])
    }

    pub(super) fn ping(meters: &'a Meters) -> Self {
        Self::begin(meters, Kind::Ping, Vec::new())
    }

    fn begin(meters: &'a Meters, kind: Kind<'a>, maps: Vec<Arc<MapMeters>>) -> Self {
        for map in &maps {
            map.in_flight.increment(1);
        }
        Self {
            meters,
            kind,
            maps,
            began: Instant::now(),
            outcome: Outcome::Cancelled,
        }
    }

    pub(super) fn answered<T>(&mut self, answer: &Result<T>) {
        match answer {
            Ok(_) => self.outcome = Outcome::Ok,
            Err(error) => self.failed(error),
        }
    }

    pub(super) fn failed(&mut self, error: &Error) {
        self.outcome = Outcome::Error;
        if self.maps.is_empty() {
            self.meters.count_error("", error);
        }
        for map in &self.maps {
            self.meters.count_error(map.name.as_str(), error);
        }
    }

    /// Records the next page of a load, or its end.
    pub(super) fn read(&mut self, page: Option<&Result<Vec<Record>>>) {
        match (page, &mut self.kind) {
            (Some(Ok(page)), Kind::Load { records, bytes }) => {
                *records += page.len();
                *bytes += page.iter().map(size).sum::<usize>();
            }
            (Some(Err(error)), _) => self.failed(error),
            // The stream also ends after an error.
            (None, _) if self.outcome == Outcome::Cancelled => self.outcome = Outcome::Ok,
            (Some(Ok(_)) | None, _) => {}
        }
    }

    fn timer<'m>(&'m self, map: &'m MapMeters) -> &'m Timer {
        match self.kind {
            Kind::Commit(_) => &map.commit,
            Kind::Load { .. } | Kind::Ping => &map.load,
        }
    }

    /// Records the sizes of a successful call.
    fn record_sizes(&self) {
        match self.kind {
            Kind::Commit(batch) => {
                for (map, part) in self.maps.iter().zip(batch.maps.iter()) {
                    map.commit_size.record(part.changes.len(), weight(part));
                }
            }
            Kind::Load { records, bytes } => {
                for map in &self.maps {
                    map.load_size.record(records, bytes);
                }
            }
            Kind::Ping => {}
        }
    }

    fn warn(&self, took: Duration) {
        let maps: Vec<_> = self.maps.iter().map(|map| map.name.as_str()).collect();
        let (provider, outcome) = (&*self.meters.provider, self.outcome.label());
        tracing::warn!(target: PROVIDER, provider, call = self.name(), map = %maps.join(","), ?took, outcome, "a slow call");
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Commit(_) => "commit",
            Kind::Load { .. } => "load",
            Kind::Ping => "ping",
        }
    }
}

impl Drop for Measurement<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        if self.maps.is_empty() && matches!(self.kind, Kind::Ping) {
            self.meters.ping.record(self.outcome, took);
        }
        for map in &self.maps {
            map.in_flight.decrement(1);
            self.timer(map).record(self.outcome, took);
        }
        if self.outcome == Outcome::Ok {
            self.record_sizes();
        }
        if self.meters.slow.is_some_and(|limit| took >= limit) {
            self.warn(took);
        }
    }
}

fn weight(part: &MapBatch) -> usize {
    part.changes.iter().map(|change| change.weight()).sum()
}

fn size(record: &Record) -> usize {
    record.key.len() + record.value.as_ref().map_or(0, |value| value.bytes.len())
}
