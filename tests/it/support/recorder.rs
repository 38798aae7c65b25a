//! A recorder of metrics for the current thread. All tests share a process, so none of them
//! installs a global recorder.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString,
    Unit,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// Keeps all metrics, and counts how often a handle was asked for.
#[derive(Default)]
pub(crate) struct TestRecorder {
    recorder: DebuggingRecorder,
    registered: AtomicUsize,
}

impl TestRecorder {
    /// Records the metrics of this thread, and with it of a current-thread runtime, while the
    /// guard is held.
    pub(crate) fn install(&self) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(self)
    }

    pub(crate) fn registered(&self) -> usize {
        self.registered.load(Relaxed)
    }

    /// The values since the last call, like `name{label=value,…}`. Counters and gauges have one
    /// value, and those of 0 are left out. Clears all of them.
    pub(crate) fn take(&self) -> BTreeMap<String, Vec<f64>> {
        let all = self.snapshotter().snapshot().into_vec().into_iter();
        let metrics = all.map(|(key, _, _, value)| {
            let labels = key.key().labels();
            let labels: Vec<_> = labels
                .map(|l| format!("{}={}", l.key(), l.value()))
                .collect();
            let values = match value {
                DebugValue::Counter(count) => vec![f64::from(u32::try_from(count).unwrap())],
                DebugValue::Gauge(value) => vec![value.into_inner()],
                DebugValue::Histogram(values) => {
                    values.into_iter().map(|v| v.into_inner()).collect()
                }
            };
            (
                format!("{}{{{}}}", key.key().name(), labels.join(",")),
                values,
            )
        });
        metrics
            .filter(|(_, values)| values.iter().any(|value| *value != 0.0))
            .collect()
    }

    /// The names that have a description.
    pub(crate) fn described(&self) -> Vec<String> {
        let all = self.snapshotter().snapshot().into_vec().into_iter();
        let described = all.filter(|(_, _, text, _)| text.is_some());
        described
            .map(|(key, ..)| key.key().name().to_owned())
            .collect()
    }

    fn snapshotter(&self) -> Snapshotter {
        self.recorder.snapshotter()
    }

    fn count(&self) -> &DebuggingRecorder {
        self.registered.fetch_add(1, Relaxed);
        &self.recorder
    }
}

impl Recorder for TestRecorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.recorder.describe_counter(key, unit, text);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.recorder.describe_gauge(key, unit, text);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.recorder.describe_histogram(key, unit, text);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.count().register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.count().register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.count().register_histogram(key, metadata)
    }
}
