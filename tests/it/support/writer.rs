//! Writers that commit to a store without a map.

use std::time::{Duration, SystemTime};

use persistify::{
    Batch, BatchId, Change, Committed, MapBatch, MapName, Payload, Provider, Result, Revision,
    WriterId,
};

/// A writer that commits one batch after the other.
pub(crate) struct Pen {
    pub(crate) id: WriterId,
    sequence: u64,
    pub(crate) at: SystemTime,
}

impl Pen {
    pub(crate) fn new() -> Self {
        Self {
            id: WriterId::random(),
            sequence: 0,
            at: whole_millis(SystemTime::now()),
        }
    }

    pub(crate) fn batch(&mut self, maps: Vec<MapBatch>) -> Batch {
        self.sequence += 1;
        let id = BatchId::new(self.id, self.sequence);
        Batch::new(id, Revision::ZERO, self.at, maps)
    }

    pub(crate) fn changes(&mut self, map: &MapName, changes: Vec<Change>) -> Batch {
        self.batch(vec![MapBatch::new(map.clone(), changes)])
    }

    pub(crate) async fn write(
        &mut self,
        to: &dyn Provider,
        map: &MapName,
        changes: Vec<Change>,
    ) -> Result<Committed> {
        let batch = self.changes(map, changes).divisible(true);
        to.commit(&batch).await
    }

    pub(crate) async fn put(
        &mut self,
        to: &dyn Provider,
        map: &MapName,
        key: &str,
        json: &str,
    ) -> Revision {
        let committed = self.write(to, map, vec![put(key, json)]).await;
        committed.unwrap().revision.unwrap()
    }
}

/// Rounds a time down to milliseconds, the precision of the stores.
fn whole_millis(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap())
}

/// Changes the map `map` as another process would.
pub(crate) async fn write_as_another(store: &dyn Provider, changes: Vec<Change>) {
    let id = BatchId::new(WriterId::random(), 1);
    let part = MapBatch::new(map_name(), changes);
    let batch = Batch::new(id, Revision::ZERO, SystemTime::now(), vec![part]);
    store.commit(&batch).await.unwrap();
}

/// Puts a JSON text that never expires.
pub(crate) fn put(key: &str, json: &str) -> Change {
    Change::put(key, Payload::json(json.to_owned()), None)
}

pub(crate) fn name(name: &str) -> MapName {
    MapName::new(name).unwrap()
}

/// The name of the map that most tests use.
pub(crate) fn map_name() -> MapName {
    name("map")
}
