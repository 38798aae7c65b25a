//! The figures of a map as metrics.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::map::{Map, lifetime::Lifetime};

/// The gauges, with their descriptions.
const GAUGES: [(&str, Unit, &str); 6] = [
    (
        "persistify_entries",
        Unit::Count,
        "Entries in memory, including expired ones that are not removed yet.",
    ),
    (
        "persistify_pending_keys",
        Unit::Count,
        "Keys that are changed and not committed.",
    ),
    (
        "persistify_oldest_pending_seconds",
        Unit::Seconds,
        "Age of the oldest pending change.",
    ),
    (
        "persistify_refused_keys",
        Unit::Count,
        "Changes that the store rejects for good.",
    ),
    (
        "persistify_unreadable_records",
        Unit::Count,
        "Stored records that do not decode.",
    ),
    (
        "persistify_healthy",
        Unit::Count,
        "1 if changes reach the store, else 0.",
    ),
];

/// The counters, with their descriptions.
const COUNTERS: [(&str, &str); 4] = [
    ("persistify_commits_total", "Batches committed."),
    ("persistify_changes_total", "Changes committed."),
    (
        "persistify_failed_attempts_total",
        "Attempts to save that failed.",
    ),
    (
        "persistify_conflicts_total",
        "Changes that conflicted with another process's write.",
    ),
];

impl<V, L: Lifetime<V>> Map<V, L> {
    /// Records the figures of the map as [metrics](crate#metrics), with the labels
    /// `provider`, the argument, and `map`. Call it before each scrape. Needs the feature
    /// `metrics`.
    ///
    /// A map does not record them by itself, so they cost nothing between two scrapes. One
    /// call takes a few microseconds and some small allocations. It may be called from any
    /// thread. The gauges of a map keep their last values after it is closed.
    #[expect(
        clippy::cast_precision_loss,
        reason = "metrics are floating-point numbers"
    )]
    pub fn record_metrics(&self, provider: impl AsRef<str>) {
        let (provider, map) = (provider.as_ref(), self.name().as_str());
        let labels = [("provider", provider.to_owned()), ("map", map.to_owned())];
        let stats = self.stats();
        let is_healthy = self.core.health.borrow().is_healthy();
        let values = [
            self.core.held() as f64,
            stats.pending as f64,
            stats.oldest_pending.unwrap_or_default().as_secs_f64(),
            stats.refused as f64,
            stats.unreadable as f64,
            f64::from(u8::from(is_healthy)),
        ];
        for ((name, unit, text), value) in GAUGES.into_iter().zip(values) {
            describe_gauge!(name, unit, text);
            gauge!(name, &labels).set(value);
        }
        let totals = [
            stats.commits,
            stats.changes,
            stats.failed_attempts,
            stats.conflicts,
        ];
        let news = self.core.tally.unrecorded(totals);
        for ((name, text), news) in COUNTERS.into_iter().zip(news) {
            describe_counter!(name, Unit::Count, text);
            counter!(name, &labels).increment(news);
        }
    }
}
