//! The contents of the store, independent of the maps.

use std::{collections::BTreeMap, time::SystemTime};

use persistify::{
    Batch, BatchId, Change, Clock, MapBatch, MapName, Payload, Provider, Record, Revision, Wanted,
    WriterId, testing::Faulty,
};

use super::{book::Held as Tokens, held::Held, tested::Value, world::Ground};

pub(super) type Store = Faulty<Held>;
pub(super) type Records = BTreeMap<String, Record>;

pub(super) fn name(map: usize) -> MapName {
    MapName::new(["a", "b"][map]).unwrap()
}

pub(super) fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

pub(super) async fn records(store: &dyn Provider, map: &MapName) -> (Revision, Records) {
    let load = store.load(map, Wanted::All).await.unwrap();
    let horizon = load.horizon;
    let records = load.into_records().await.unwrap();
    let records = records.into_iter().filter(|r| r.value.is_some());
    (horizon, records.map(|r| (r.key.to_string(), r)).collect())
}

/// The value of a record, if it decodes.
pub(super) fn value(record: &Record) -> Option<Value> {
    let payload = record.value.as_ref()?;
    let value: Value = serde_json::from_slice(&payload.bytes).ok()?;
    assert_eq!(value.0, payload.schema, "not of the shape that it says");
    Some(value)
}

/// The values that decode and have not expired.
pub(super) fn live(records: &Records, now: u64) -> Tokens {
    let live = |r: &&Record| r.expires_at.is_none_or(|at| now < millis(at));
    let live = records.values().filter(live);
    live.filter_map(|r| Some((r.key.to_string(), value(r)?.1)))
        .collect()
}

/// Commits a record like another program, while no map is open.
pub(super) async fn plant(to: &Ground, map: usize, key: &str, text: &str, shape: u32) {
    let payload = Payload::json(text.to_owned()).with_schema(shape);
    let part = MapBatch::new(name(map), vec![Change::put(key, payload, None)]);
    let id = BatchId::new(WriterId::random(), 1);
    let batch = Batch::new(id, Revision::ZERO, to.clock.now(), vec![part]);
    to.calm.commit(&batch).await.unwrap();
}

/// The latest revision that was seen of each key: the store never goes back.
#[derive(Clone, Default)]
pub(super) struct Seen {
    horizons: [Revision; 2],
    revisions: BTreeMap<(usize, String), Revision>,
}

impl Seen {
    /// Asserts that a later load is at least as new.
    pub(super) fn check(&self, map: usize, horizon: Revision, records: &Records) {
        let seen = self.horizons[map];
        assert!(
            seen <= horizon,
            "map {map} went back to {horizon} from {seen}"
        );
        for (key, record) in records {
            let seen = self.revisions.get(&(map, key.clone())).copied();
            let revision = record.revision;
            assert!(seen <= Some(revision), "{key} of map {map} went back");
        }
    }

    pub(super) fn add(&mut self, map: usize, horizon: Revision, records: &Records) {
        self.horizons[map] = self.horizons[map].max(horizon);
        for (key, record) in records {
            let seen = self.revisions.entry((map, key.clone())).or_default();
            *seen = record.revision.max(*seen);
        }
    }
}

/// Records that do not decode, which no operation may destroy.
#[derive(Clone, Default)]
pub(super) struct Treasure(BTreeMap<(usize, String), Vec<String>>);

impl Treasure {
    /// Gives up a record that the test is about to overwrite.
    pub(super) fn give_up(&mut self, map: usize, key: &str, there: Option<&Record>) {
        let lost = there.and_then(|record| record.value.as_ref());
        let Some(lost) = lost.map(|payload| &payload.bytes) else {
            return;
        };
        if let Some(texts) = self.0.get_mut(&(map, key.to_owned())) {
            texts.retain(|text| text.as_bytes() != lost);
        }
    }

    pub(super) fn bury(&mut self, map: usize, key: &str, text: &str) {
        let here = self.0.entry((map, key.to_owned())).or_default();
        here.push(text.to_owned());
    }

    pub(super) async fn check(&self, store: &dyn Provider) {
        for map in 0..2 {
            let (_, mut records_here) = records(store, &name(map)).await;
            let aside = name(map).nested("unreadable").unwrap();
            records_here.append(&mut records(store, &aside).await.1);
            let all: Vec<_> = records_here.values().collect();
            for ((_, key), texts) in self.0.iter().filter(|((m, _), _)| *m == map) {
                for text in texts {
                    let is_it = |r: &&&Record| {
                        r.value.as_ref().is_some_and(|p| p.bytes == text.as_bytes())
                            && (*r.key == **key || r.key.ends_with(&format!(":{key}")))
                    };
                    assert!(
                        all.iter().any(|r| is_it(&r)),
                        "{text} of map {map} was destroyed at {key}"
                    );
                }
            }
        }
    }
}
