//! The provider under test: runs operations on it, and reports broken promises.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::LocalBoxFuture;

use super::{
    model::Model,
    report::{Outcome, Promise},
    same::{difference, same_skipped},
    writer::Writer,
};
use crate::{
    batch::{Batch, Committed},
    error::{Error, ErrorKind, Result},
    load::{Load, Wanted},
    name::MapName,
    provider::{Capabilities, Provider},
    record::{Record, Revision},
};

pub(super) type Opened<'a> = LocalBoxFuture<'a, Result<Arc<dyn Provider>>>;

/// The time within which a store must release its locks.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// How the previous handle ends before the store is reopened.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Closed,
    Dropped,
}

/// The test of one promise.
pub(super) struct Trial<'a> {
    promise: Promise,
    open: &'a dyn Fn() -> Opened<'a>,
    provider: Arc<dyn Provider>,
    /// A tag in all names; no other run uses it.
    tag: String,
    doing: String,
    outcome: Outcome,
    models: BTreeMap<MapName, Model>,
}

impl<'a> Trial<'a> {
    pub(super) async fn begin(promise: Promise, open: &'a dyn Fn() -> Opened<'a>) -> Self {
        let tag = format!("{:08x}", Writer::new().id.get() >> 96);
        let provider = match open_patiently(open).await {
            Ok(provider) => provider,
            Err(error) => broken(promise, "open the store", &"a provider", &error),
        };
        Self {
            promise,
            open,
            provider,
            tag,
            doing: String::new(),
            outcome: Outcome::new(promise),
            models: BTreeMap::new(),
        }
    }

    /// Clears the maps that were used, and closes the provider.
    pub(super) async fn end(mut self) -> Outcome {
        self.doing("clear the maps that were used, release them, close");
        let mut writer = Writer::new();
        let filled = self.models.iter().filter(|(_, m)| !m.records.is_empty());
        for map in filled.map(|(map, _)| map.clone()).collect::<Vec<_>>() {
            self.commit(&writer.clearing(&map, vec![])).await;
        }
        for map in self.models.keys() {
            self.expect_ok(self.provider.release(map).await);
        }
        self.expect_ok(self.provider.close().await);
        self.outcome
    }

    pub(super) fn provider(&self) -> &Arc<dyn Provider> {
        &self.provider
    }

    pub(super) fn claims(&self) -> Capabilities {
        self.provider.capabilities()
    }

    /// Returns a map that no other check and no other program uses.
    pub(super) fn map(&self, name: &str) -> MapName {
        let name = format!("conformance {} {} {name}", self.tag, self.promise);
        match MapName::new(name) {
            Ok(name) => name,
            Err(error) => self.broken("a valid name", error),
        }
    }

    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    /// Begins a check with this name.
    pub(super) fn check(&mut self, check: &str) {
        self.outcome.add(check);
        self.doing(check);
    }

    pub(super) fn leave_out(&mut self, check: &str, why: &str) {
        self.outcome.leave_out(check, why);
    }

    /// Records the operation, for the message of a failure.
    pub(super) fn doing(&mut self, what: impl Into<String>) {
        self.doing = what.into();
    }

    pub(super) fn broken(&self, expected: impl fmt::Display, found: impl fmt::Debug) -> ! {
        broken(self.promise, &self.doing, &expected, &found)
    }

    pub(super) fn ensure(&self, holds: bool, expected: &str, found: impl fmt::Debug) {
        if !holds {
            self.broken(expected, found);
        }
    }

    pub(super) fn expect_ok<T>(&self, result: Result<T>) -> T {
        match result {
            Ok(value) => value,
            Err(error) => self.broken("success", error),
        }
    }

    /// Ends the current handle and reopens the store.
    pub(super) async fn reopen(&mut self, end: End) {
        let before = std::mem::replace(&mut self.provider, Arc::new(Gone));
        if matches!(end, End::Closed) {
            self.expect_ok(before.close().await);
        }
        drop(before);
        match open_patiently(self.open).await {
            Ok(provider) => self.provider = provider,
            Err(error) => self.broken(format!("to open again ({end:?} before)"), error),
        }
    }

    /// Commits a batch, and expects success.
    pub(super) async fn commit(&mut self, batch: &Batch) -> Committed {
        let answer = self.expect_ok(self.provider.commit(batch).await);
        self.accept(batch, &answer);
        answer
    }

    /// Applies a batch to the model.
    pub(super) fn accept(&mut self, batch: &Batch, answer: &Committed) {
        let revision = self.revision(answer);
        for part in batch.maps.iter() {
            let model = self.models.entry(part.map.clone()).or_default();
            model.apply(part, batch, revision, &answer.skipped);
        }
    }

    pub(super) fn revision(&self, answer: &Committed) -> Revision {
        match answer.revision {
            Some(revision) => revision,
            None => self.broken("the revision of the commit", answer),
        }
    }

    /// Commits a batch, and expects an error with nothing written.
    pub(super) async fn commit_fails(&mut self, batch: &Batch, kind: ErrorKind) -> Error {
        let error = match self.provider.commit(batch).await {
            Err(error) if error.kind() == kind => error,
            other => self.broken(format!("an error of kind {kind:?}"), other),
        };
        let expected = "an error that says that nothing was applied";
        self.ensure(!error.may_have_applied(), expected, &error);
        for part in batch.maps.iter() {
            self.verify(&part.map).await;
        }
        error
    }

    /// Repeats a batch that was already applied.
    pub(super) async fn repeat(&mut self, batch: &Batch, before: &Committed) {
        let answer = self.expect_ok(self.provider.commit(batch).await);
        if !same_answer(before, &answer) {
            self.broken(format!("the answer given before: {before:?}"), answer);
        }
        for part in batch.maps.iter() {
            self.verify(&part.map).await;
        }
    }

    /// Drops a map in the model.
    pub(super) fn forget(&mut self, map: &MapName) {
        self.models.remove(map);
    }

    pub(super) fn model(&self, map: &MapName) -> Model {
        self.models.get(map).cloned().unwrap_or_default()
    }

    /// Expects that the map contains exactly what was committed.
    pub(super) async fn verify(&self, map: &MapName) {
        self.verify_wanted(map, Wanted::All).await;
    }

    pub(super) async fn verify_all(&self) {
        for map in self.models.keys() {
            self.verify(map).await;
        }
    }

    /// Compares a load with the model, and returns its horizon.
    pub(super) async fn verify_wanted(&self, map: &MapName, wanted: Wanted) -> Revision {
        let wanted = match wanted {
            // They are `Unsupported`.
            Wanted::Changed { .. } if self.claims().sharded => Wanted::All,
            wanted => wanted,
        };
        let expected = self.model(map).wanted(&wanted);
        let load = self.load(map, wanted.clone()).await;
        let horizon = load.horizon;
        let found = self.expect_ok(load.into_records().await);
        let changed = matches!(wanted, Wanted::Changed { .. });
        let deletions = changed && self.claims().deletions;
        let found = self.by_key(found, deletions);
        if let Some((expected, found)) = first_difference(&expected, &found) {
            self.broken(
                format!("{expected}, from a load of {wanted:?}"),
                Plain(&found),
            );
        }
        horizon
    }

    pub(super) async fn load<'l>(&'l self, map: &'l MapName, wanted: Wanted) -> Load<'l> {
        self.expect_ok(self.provider.load(map, wanted).await)
    }

    fn by_key(&self, records: Vec<Record>, deletions: bool) -> BTreeMap<Arc<str>, Record> {
        let mut by_key = BTreeMap::new();
        for record in records {
            let live = record.value.is_some();
            let allowed = live || deletions;
            self.ensure(allowed, "no records of deleted keys", &record);
            if let Some(twice) = by_key.insert(Arc::clone(&record.key), record) {
                self.broken("each key once", Text(&twice));
            }
        }
        by_key.retain(|_, record: &mut Record| record.value.is_some());
        by_key
    }
}

async fn open_patiently<'a>(open: &dyn Fn() -> Opened<'a>) -> Result<Arc<dyn Provider>> {
    let begun = Instant::now();
    loop {
        match open().await {
            Err(error) if error.kind() == ErrorKind::Unavailable && begun.elapsed() < MAX_WAIT => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}

#[expect(
    clippy::panic,
    reason = "a broken contract fails the test that runs this"
)]
fn broken(promise: Promise, doing: &str, expected: &dyn fmt::Display, found: &dyn fmt::Debug) -> ! {
    panic!(
        "the provider is not {promise}\n    done: {doing}\nexpected: {expected}\n   found: {}",
        shortened(&format!("{found:?}"))
    )
}

fn same_answer(before: &Committed, now: &Committed) -> bool {
    before.revision == now.revision && same_skipped(&before.skipped, &now.skipped)
}

fn first_difference(
    expected: &BTreeMap<Arc<str>, Record>,
    found: &BTreeMap<Arc<str>, Record>,
) -> Option<(String, String)> {
    for (key, expected) in expected {
        let Some(found) = found.get(key) else {
            return Some((Text(expected).to_string(), "no such record".to_owned()));
        };
        if let Some(part) = difference(expected, found) {
            let found = format!("{} ({part} differs)", Text(found));
            return Some((Text(expected).to_string(), found));
        }
    }
    let extra = found.values().find(|r| !expected.contains_key(&r.key))?;
    let key = shortened(&format!("{:?}", extra.key));
    Some((format!("no record of key {key}"), Text(extra).to_string()))
}

/// A record, shortened for a message.
struct Text<'a>(&'a Record);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shortened(&format!("{:?}", self.0)))
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is displayed without quotes in the debug output.
struct Plain<'a>(&'a str);

impl fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 1_000;
    let mut short: String = text.chars().take(MAX_CHARS).collect();
    if short.len() < text.len() {
        // Writing to a string cannot fail.
        let _ = write!(short, "… ({} bytes)", text.len());
    }
    short
}

/// The provider of a trial whose store is not open.
#[derive(Debug)]
struct Gone;

#[async_trait::async_trait]
impl Provider for Gone {
    async fn load<'a>(&'a self, _map: &MapName, _wanted: Wanted) -> Result<Load<'a>> {
        Err(Error::new(ErrorKind::Closed, "no store is open"))
    }

    async fn commit(&self, _batch: &Batch) -> Result<Committed> {
        Err(Error::new(ErrorKind::Closed, "no store is open"))
    }
}
