//! The metrics of a store, by map.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use metrics::{
    Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use parking_lot::RwLock;

use crate::{error::Error, name::MapName};

/// The metrics of a store. The handles of a map are created once, because registering a
/// metric allocates its labels and searches the recorder.
pub(super) struct Meters {
    pub(super) provider: Arc<str>,
    pub(super) slow: Option<Duration>,
    pub(super) ping: Timer,
    maps: RwLock<HashMap<MapName, Arc<MapMeters>>>,
}

/// The metrics of one map.
pub(super) struct MapMeters {
    pub(super) name: MapName,
    pub(super) commit: Timer,
    pub(super) load: Timer,
    pub(super) commit_size: Size,
    pub(super) load_size: Size,
    pub(super) in_flight: Gauge,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Error,
    Cancelled,
}

/// Durations by outcome.
pub(super) struct Timer([Histogram; 3]);

/// The sizes of calls: the number of items, and their bytes.
pub(super) struct Size {
    items: Histogram,
    bytes: Histogram,
}

type Labels = Vec<(&'static str, Arc<str>)>;

impl Meters {
    pub(super) fn new(provider: Arc<str>, slow: Option<Duration>) -> Self {
        Self {
            ping: Timer::new(
                "persistify_ping_seconds",
                &vec![("provider", provider.clone())],
            ),
            provider,
            slow,
            maps: RwLock::default(),
        }
    }

    /// The metrics of a map.
    pub(super) fn of(&self, map: &MapName) -> Arc<MapMeters> {
        if let Some(known) = self.maps.read().get(map) {
            return known.clone();
        }
        let mut maps = self.maps.write();
        let new = || Arc::new(MapMeters::new(&self.provider, map));
        maps.entry(map.clone()).or_insert_with(new).clone()
    }

    pub(super) fn count_error(&self, map: &str, error: &Error) {
        let kind = format!("{:?}", error.kind()).to_lowercase();
        let (provider, map) = (self.provider.clone(), map.to_owned());
        counter!("persistify_errors_total", "provider" => provider, "map" => map, "kind" => kind)
            .increment(1);
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters")
            .field("provider", &self.provider)
            .field("slow", &self.slow)
            .finish_non_exhaustive()
    }
}

impl MapMeters {
    fn new(provider: &Arc<str>, map: &MapName) -> Self {
        let labels: Labels = vec![("provider", provider.clone()), ("map", map.as_str().into())];
        Self {
            name: map.clone(),
            commit: Timer::new("persistify_commit_seconds", &labels),
            load: Timer::new("persistify_load_seconds", &labels),
            commit_size: Size {
                items: histogram!("persistify_commit_changes", &labels),
                bytes: histogram!("persistify_commit_bytes", &labels),
            },
            load_size: Size {
                items: histogram!("persistify_load_records", &labels),
                bytes: histogram!("persistify_load_bytes", &labels),
            },
            in_flight: gauge!("persistify_calls_in_flight", &labels),
        }
    }
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Ok, Self::Error, Self::Cancelled];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Timer {
    fn new(name: &'static str, labels: &Labels) -> Self {
        Self(Outcome::ALL.map(|outcome| {
            let mut labels = labels.clone();
            labels.push(("outcome", outcome.label().into()));
            histogram!(name, &labels)
        }))
    }

    pub(super) fn record(&self, outcome: Outcome, took: Duration) {
        self.0[outcome as usize].record(took);
    }
}

impl Size {
    #[expect(clippy::cast_precision_loss, reason = "a metric")]
    pub(super) fn record(&self, items: usize, bytes: usize) {
        self.items.record(items as f64);
        self.bytes.record(bytes as f64);
    }
}

/// Describes the metrics to the recorder.
pub(super) fn describe() {
    for (name, unit, text) in [
        (
            "persistify_commit_seconds",
            Unit::Seconds,
            "Duration of the commits to the store.",
        ),
        (
            "persistify_load_seconds",
            Unit::Seconds,
            "Duration of the loads, until the last page is read.",
        ),
        (
            "persistify_ping_seconds",
            Unit::Seconds,
            "Duration of the pings of the store.",
        ),
        (
            "persistify_commit_changes",
            Unit::Count,
            "Changes in a commit.",
        ),
        (
            "persistify_commit_bytes",
            Unit::Bytes,
            "Bytes of keys and values in a commit.",
        ),
        ("persistify_load_records", Unit::Count, "Records of a load."),
        (
            "persistify_load_bytes",
            Unit::Bytes,
            "Bytes of keys and values of a load.",
        ),
    ] {
        describe_histogram!(name, unit, text);
    }
    describe_counter!(
        "persistify_errors_total",
        Unit::Count,
        "Failed calls of the store, by kind of the error."
    );
    describe_gauge!(
        "persistify_calls_in_flight",
        Unit::Count,
        "Calls of the store in flight."
    );
}
