//! The steps of a history: the map under test, a model of it, and their stores.

use super::*;

/// The map under test, its model, and the acknowledged states.
pub(super) struct History<'a, P: Place> {
    pub(super) place: &'a P,
    pub(super) caching: bool,
    pub(super) clock: SystemClock,
    pub(super) store: Faulty<P::Store>,
    pub(super) map: Tested,
    pub(super) hung: Vec<Hang>,
    /// By key: the last acknowledged state, and all that were written since.
    pub(super) written: HashMap<String, Vec<Option<Held>>>,
}

impl<'a, P: Place> History<'a, P> {
    pub(super) async fn begin(place: &'a P, caching: bool) -> Self {
        let (store, clock) = (Faulty::new(place.open().await), SystemClock::new());
        Self {
            place,
            caching,
            map: open(&store, caching, &clock).await,
            clock,
            store,
            hung: Vec::new(),
            written: keys().map(|key| (key, vec![None])).collect(),
        }
    }

    pub(super) fn now(&self) -> u64 {
        millis(self.clock.now())
    }

    pub(super) fn live(&self, state: Option<Held>) -> Option<Held> {
        let now = self.now();
        state.filter(|held| held.until.is_none_or(|until| now < until))
    }

    pub(super) fn model(&self, key: &str) -> Option<u64> {
        let last = self.written[key].last();
        self.live(*last.unwrap()).map(|held| held.value)
    }

    pub(super) fn write(&mut self, key: &str, state: Option<Held>) {
        self.written.get_mut(key).unwrap().push(state);
    }

    pub(super) fn put(&mut self, key: &str, value: u64, own: Option<u64>) {
        // A TTL below four milliseconds counts as four.
        let own = own.map(|own| if own == 0 { 0 } else { own.max(4) });
        let until = own.map(|own| end_of(self.now(), own));
        self.write(key, Some(Held { value, until, own }));
    }

    /// An update restarts the entry's own TTL.
    pub(super) fn update(&mut self, key: &str, value: u64) {
        let last = *self.written[key].last().unwrap();
        if let Some(held) = self.live(last) {
            self.put(key, value, held.own);
        }
    }

    pub(super) fn clear(&mut self) {
        keys().for_each(|key| self.write(&key, None));
    }

    /// The latest write of each key. A flush that begins now covers these.
    pub(super) fn marks(&self) -> HashMap<String, usize> {
        let marks = self.written.iter();
        marks
            .map(|(key, states)| (key.clone(), states.len() - 1))
            .collect()
    }

    pub(super) fn acknowledge(&mut self, key: &str, mark: usize) {
        self.written.get_mut(key).unwrap().drain(..mark);
    }

    pub(super) fn acknowledge_all(&mut self, marks: &HashMap<String, usize>) {
        for (key, mark) in marks {
            self.acknowledge(key, *mark);
        }
    }

    pub(super) fn check_memory(&self) {
        let model = keys().filter_map(|key| Some((key.clone(), self.model(&key)?)));
        let model: HashMap<_, _> = model.collect();
        assert_eq!(self.map.snapshot(), model);
        assert_eq!(self.map.len(), model.len());
        for key in keys() {
            assert_eq!(self.map.get(&key), model.get(&key).copied());
        }
    }

    /// The live entries of the store, by key.
    pub(super) async fn stored(&self) -> HashMap<String, Option<Held>> {
        let records = records(self.store.inner()).await;
        let held = |key: &String| {
            let record = records.get(key)?;
            let value = &record.value.as_ref().unwrap().bytes;
            let held = Held {
                value: serde_json::from_slice(value).unwrap(),
                until: record.expires_at.map(millis),
                own: own_time(record),
            };
            self.live(Some(held))
        };
        keys().map(|key| (key.clone(), held(&key))).collect()
    }

    pub(super) async fn check_store(&self) {
        for (key, found) in self.stored().await {
            let found = found.map(|held| held.value);
            assert_eq!(found, self.model(&key), "{key} in the store");
        }
    }

    pub(super) async fn take(&mut self, step: Step) {
        match step {
            Step::Insert(key, value) => {
                let key = key_name(key);
                assert_eq!(self.map.insert(&key, value, None), self.model(&key));
                self.put(&key, value, None);
            }
            Step::InsertFor(key, value, ms) => {
                let key = key_name(key);
                // In real time, the entry must not expire during the test.
                let ms = if P::PAUSED && ms % 4 > 0 {
                    ms
                } else {
                    3_600_000
                };
                let ttl = Some(Duration::from_millis(ms));
                assert_eq!(self.map.insert(&key, value, ttl), self.model(&key));
                self.put(&key, value, self.caching.then_some(ms));
            }
            Step::Update(key, value) => {
                let key = key_name(key);
                assert_eq!(self.map.update(&key, value), self.model(&key));
                self.update(&key, value);
            }
            Step::Remove(key) => {
                let key = key_name(key);
                assert_eq!(self.map.remove(&key), self.model(&key));
                self.write(&key, None);
            }
            Step::Retain(bits) => {
                let goes = |value: u64| (value ^ bits).count_ones().is_multiple_of(2);
                self.map.retain(|_, value| !goes(*value));
                for key in keys()
                    .filter(|key| self.model(key).is_some_and(goes))
                    .collect::<Vec<_>>()
                {
                    self.write(&key, None);
                }
            }
            Step::Clear => {
                self.map.clear();
                self.clear();
            }
            Step::Wait(ms) => {
                let ms = if P::PAUSED { ms } else { ms / 20 };
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            Step::Fail(n, failure) => self.store.fail_next(n.into(), failure.fault()),
            Step::Hang => self.hung.push(self.store.hang_next()),
            Step::Land => self.land().await,
            Step::Reopen { close } => self.reopen(close).await,
            saving => self.save(saving).await,
        }
    }

    pub(super) async fn save(&mut self, step: Step) {
        match step {
            Step::InsertAndSave(key, value) => {
                let (key, old) = (key_name(key), self.model(&key_name(key)));
                self.put(&key, value, None);
                let saved = self.map.insert_and_save(&key, value).await;
                self.saved(&key, old, &saved);
            }
            Step::UpdateAndSave(key, value) => {
                let (key, old) = (key_name(key), self.model(&key_name(key)));
                self.update(&key, value);
                let saved = self.map.update_and_save(&key, value).await;
                self.saved(&key, old, &saved);
            }
            Step::RemoveAndSave(key) => {
                let (key, old) = (key_name(key), self.model(&key_name(key)));
                self.write(&key, None);
                let saved = self.map.remove_and_save(&key).await;
                self.saved(&key, old, &saved);
            }
            Step::Abandon(key, value) => {
                let key = key_name(key);
                self.put(&key, value, None);
                let mut save = Box::pin(self.map.insert_and_save(&key, value));
                assert!(futures_util::poll!(&mut save).is_pending());
            }
            Step::ClearAndSave => {
                self.clear();
                let saved = self.map.clear_and_save().await;
                self.saved_all(saved).await;
            }
            Step::Flush => {
                let flushed = self.map.flush().await;
                self.saved_all(flushed).await;
            }
            Step::Reload => {
                let reloaded = self.map.reload().await;
                self.saved_all(reloaded).await;
            }
            other => unreachable!("{other:?} is no save"),
        }
    }

    /// There is only one writer, so all writes so far came before the save.
    pub(super) fn saved(&mut self, key: &str, old: Option<u64>, saved: &Result<Option<u64>>) {
        if let Ok(replaced) = *saved {
            assert_eq!(replaced, old);
            let mark = self.marks()[key];
            self.acknowledge(key, mark);
        }
    }

    pub(super) async fn saved_all(&mut self, saved: Result<()>) {
        if saved.is_ok() {
            self.acknowledge_all(&self.marks());
            self.check_store().await;
        }
    }

    /// Applies hanging commits late. Each was applied before, is refused by the fence, or is the
    /// very batch that is still pending.
    pub(super) async fn land(&mut self) {
        for hang in &self.hung {
            for answer in hang.land().await {
                let refused = answer.err().map(|error| error.kind());
                assert!(refused.is_none_or(|kind| kind == ErrorKind::Superseded));
            }
        }
    }

    pub(super) async fn reopen(&mut self, close: bool) {
        if close && self.map.close().await.is_ok() {
            self.acknowledge_all(&self.marks());
        }
        // Otherwise it crashes. Hanging commits of the dead program are applied before another
        // program starts, or never.
        self.land().await;
        self.hung.clear();
        let idle = Faulty::new(Memory::new());
        self.map = open(&idle, self.caching, &self.clock).await;
        settle().await;
        self.store.inner().close_if_on_disk::<P>().await;
        self.store = Faulty::new(self.place.open().await);
        let found = self.stored().await;
        self.map = open(&self.store, self.caching, &self.clock).await;
        for (key, found) in found {
            let states = &self.written[&key];
            let fits = states.iter().any(|state| self.is_same(*state, found));
            assert!(
                fits,
                "{key} came back as {found:?}; it may be any of {states:?}"
            );
            self.written.insert(key, vec![found]);
        }
    }

    pub(super) fn is_same(&self, state: Option<Held>, found: Option<Held>) -> bool {
        let slack = if P::PAUSED { 0 } else { 1_000 };
        match (self.live(state), found) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                let ends = |held: Held| held.until.unwrap_or(u64::MAX);
                a.value == b.value && ends(a).abs_diff(ends(b)) <= slack
            }
            _ => false,
        }
    }
}
