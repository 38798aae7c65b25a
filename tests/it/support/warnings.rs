//! The events that the crate logs through `tracing`.

use std::{
    fmt::Write as _,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;

#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

/// Writes down every field of an event.
struct Fields(String);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let written = write!(self.0, "{field}={value:?} ");
        written.unwrap();
    }
}

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The warnings and errors logged for this map. Call it before the first of them is logged.
/// One subscriber serves the whole process, because a level that a thread of another test has
/// found disabled would stay disabled.
pub(crate) fn warnings_of(map: &str) -> Vec<String> {
    static WARNINGS: OnceLock<Warnings> = OnceLock::new();
    let warnings = WARNINGS.get_or_init(|| {
        let warnings = Warnings::default();
        tracing::subscriber::set_global_default(warnings.clone()).unwrap();
        warnings
    });
    let all = warnings.0.lock();
    let of_map = all
        .iter()
        .filter(|said| said.contains(&format!("map={map} ")));
    of_map.cloned().collect()
}
