//! The log of the crate: the targets, the spans, and the data that never appears.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::support::{as_it_is, open, open_caching};
use parking_lot::Mutex;
use persistify::{
    CachingMap, ErrorKind, Expect, Memory, PersistentMap,
    testing::{Fault, Faulty, ManualClock},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

const KEY: &str = "secret key";
const VALUE: &str = "secret value";

/// An event, or the start of a span.
struct Line {
    metadata: &'static Metadata<'static>,
    fields: BTreeMap<&'static str, String>,
}

impl Line {
    fn text(&self) -> String {
        format!("{} {:?}", self.metadata.name(), self.fields)
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    /// Records the log of this thread while the guard is held.
    fn listen() -> (Self, DefaultGuard) {
        let log = Self::default();
        let heard = tracing_subscriber::registry().with(log.clone());
        (log, heard.set_default())
    }

    fn take(&self) -> Vec<Line> {
        std::mem::take(&mut *self.0.lock())
    }

    fn note(&self, metadata: &'static Metadata<'static>, record: impl FnOnce(&mut Line)) {
        if metadata.target().starts_with("persistify") {
            let fields = BTreeMap::new();
            let mut line = Line { metadata, fields };
            record(&mut line);
            self.0.lock().push(line);
        }
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.note(attributes.metadata(), |line| attributes.record(line));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.note(event.metadata(), |line| event.record(line));
    }
}

fn spans<'a>(lines: &'a [Line], name: &str) -> Vec<&'a Line> {
    let of_name = |line: &&Line| line.metadata.is_span() && line.metadata.name() == name;
    lines.iter().filter(of_name).collect()
}

fn source(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_map_opens_loads_commits_and_closes_in_spans_that_name_what_they_are_about() {
    let (log, _guard) = Log::listen();
    let store = Memory::new();
    let map = open(store, "stock", as_it_is).await;
    map.extend([("apple", 1), ("pear", 22)]);
    map.close().await.unwrap();
    let lines = log.take();
    for (name, target) in [
        ("open", "persistify::map"),
        ("load", "persistify::load"),
        ("commit", "persistify::flush"),
        ("close", "persistify::map"),
    ] {
        let [span] = spans(&lines, name)[..] else {
            panic!("not one span {name}");
        };
        assert_eq!(span.metadata.target(), target);
        assert_eq!(span.fields["map"], "stock");
        assert_eq!(span.fields["provider"], "Memory");
    }
    let commit = spans(&lines, "commit")[0];
    assert_eq!(commit.fields["changes"], "2");
    assert_eq!(commit.fields["bytes"], "12");
    assert_eq!(commit.fields["attempt"], "1");
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_a_span_that_counts_it() {
    let (log, _guard) = Log::listen();
    let store = Faulty::new(Memory::new());
    let map = open(store.clone(), "stock", as_it_is).await;
    store.fail_next(2, Fault::Before(ErrorKind::Unavailable));
    map.insert_and_save("apple", 1).await.unwrap();
    let attempts = spans(&log.take(), "commit").len();
    assert_eq!(attempts, 3);
    store.fail_next(1, Fault::Before(ErrorKind::Unavailable));
    map.save_if("pear", 1, Expect::Absent).await.unwrap();
    let lines = log.take();
    let numbers = spans(&lines, "commit")
        .into_iter()
        .map(|span| &span.fields["attempt"]);
    assert_eq!(numbers.collect::<Vec<_>>(), ["1", "2"]);
}

async fn the_store_goes_down(store: &Faulty<Memory>) {
    let map: PersistentMap<String> = open(store.clone(), "n", as_it_is).await;
    store.down(ErrorKind::Unusable);
    let saved = map.insert_and_save(KEY, VALUE.to_owned()).await;
    saved.unwrap_err();
    // The map probes by itself, and logs each time that the store is still down.
    tokio::time::sleep(Duration::from_secs(60)).await;
    store.up();
}

/// Causes a refused value, a listener that panics, a map that is dropped with pending changes, and
/// a saved value that does not decode.
async fn much_goes_wrong(store: &Faulty<Memory>) {
    let clock = ManualClock::new(SystemTime::now());
    let map: CachingMap<String> = open_caching(store.clone(), "m", |map| {
        map.clock(clock.clone())
            .on_expire(|_, _| panic!("the listener panics on purpose"))
    })
    .await;
    store.refuse([KEY]);
    map.insert_and_save(KEY, VALUE.to_owned())
        .await
        .unwrap_err();
    store.behave();
    map.insert_with_ttl(KEY, VALUE.to_owned(), Duration::from_secs(1));
    map.flush().await.unwrap();
    clock.advance(Duration::from_secs(1));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    map.insert(KEY, VALUE.to_owned());
    map.flush().await.unwrap();
    map.insert(KEY, VALUE.to_owned());
    // On the only thread of its runtime it cannot close the map, and logs that.
    drop(map.close_on_drop(Duration::from_secs(1)));
    drop(map);
    let numbers = PersistentMap::<u32>::builder(store.clone(), "m");
    numbers.allow_unreadable().open().await.unwrap();
}

/// The log contained values that were refused or did not decode, quoted by the error of the codec,
/// and every key that was not saved.
#[tokio::test(start_paused = true)]
async fn no_key_and_no_value_is_logged_above_trace() {
    let (log, _guard) = Log::listen();
    let store = Faulty::new(Memory::new());
    the_store_goes_down(&store).await;
    much_goes_wrong(&store).await;
    let lines = log.take();
    let is_told = |line: &&Line| line.text().contains(KEY) || line.text().contains(VALUE);
    let told: Vec<_> = lines.iter().filter(is_told).collect();
    for line in &told {
        assert_eq!(*line.metadata.level(), Level::TRACE, "{}", line.text());
    }
    assert!(told.len() >= 2, "nothing went wrong with the entry");
    let is_loud = |line: &&Line| *line.metadata.level() <= Level::WARN;
    let loud: Vec<_> = lines.iter().filter(is_loud).map(Line::text).collect();
    for part in [
        "Refused",
        "Unusable",
        "Corrupt",
        "listener",
        "dropped",
        "its scope",
    ] {
        let is_there = loud.iter().any(|text| text.contains(part));
        assert!(is_there, "{part} is not in {loud:#?}");
    }
}

#[test]
fn every_target_is_documented_and_no_module_path_is_one() {
    let guide = source("src/lib.rs");
    for target in source("src/trace.rs")
        .lines()
        .filter_map(|line| line.split('"').nth(1))
    {
        if target.starts_with("persistify") {
            assert!(guide.contains(&format!("//! | `{target}` |")), "{target}");
        }
    }
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            check_targets(&path);
        }
    }
}

/// Asserts that every event in the file names its target.
fn check_targets(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    for level in ["error!(", "warn!(", "info!(", "debug!(", "trace!("] {
        for (at, _) in text.match_indices(level) {
            let arguments = text[at + level.len()..].trim_start();
            let named = arguments.starts_with("target: ");
            assert!(named, "{}: {}", path.display(), &arguments[..40]);
        }
    }
}
