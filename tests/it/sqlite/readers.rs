//! The connections used by loads.

use std::fs;

use futures_util::future::join_all;
use persistify::Provider;

use super::*;

/// The maximum number of readers beside the one writer.
const MAX_READERS: usize = 4;

/// A file with `maps` maps of `entries` entries each.
async fn filled(maps: usize, entries: usize) -> (Place, Sqlite, Vec<MapName>) {
    let place = Place::new();
    let sqlite = place.open().await;
    let names: Vec<_> = (0..maps).map(|n| name(&n.to_string())).collect();
    let changes = || (0..entries).map(|n| put(&n.to_string(), "1")).collect();
    let parts = names
        .iter()
        .map(|name| MapBatch::new(name.clone(), changes()));
    let batch = Pen::new().batch(parts.collect());
    sqlite.commit(&batch).await.unwrap();
    (place, sqlite, names)
}

async fn count(sqlite: &Sqlite, map: &MapName) -> usize {
    all(sqlite, map).await.len()
}

impl Place {
    /// The number of times this process has the file open. (SQLite may keep the file open a
    /// while after a connection closes.)
    fn connections(&self) -> usize {
        let path = fs::canonicalize(self.path()).unwrap();
        let open = fs::read_dir("/proc/self/fd").unwrap();
        let leads_here = |link: PathBuf| fs::read_link(link).is_ok_and(|to| to == path);
        open.filter(|fd| leads_here(fd.as_ref().unwrap().path()))
            .count()
    }
}

/// Each load had its own connection, which read the schema of the whole file. In a file with a
/// thousand maps, each open took as long as reading the schema of a thousand tables.
#[tokio::test]
async fn loads_in_turn_share_a_connection_and_none_is_left_after_the_close() {
    let (place, sqlite, maps) = filled(8, 1).await;
    for map in &maps {
        assert_eq!(count(&sqlite, map).await, 1);
        assert_eq!(place.connections(), 2);
    }
    sqlite.close().await.unwrap();
    assert_eq!(place.connections(), 0);
    let left = fs::read_dir(place.folder.path()).unwrap();
    assert_eq!(left.count(), 1, "the log is still there");
}

/// A thousand maps opened at once had a thousand threads and connections, each with the schema
/// of all tables.
#[tokio::test]
async fn many_loads_at_once_share_a_few_connections() {
    let (place, sqlite, maps) = filled(64, 1).await;
    let loads = maps.iter().map(async |map| {
        let found = count(&sqlite, map).await;
        (found, place.connections())
    });
    for (found, connections) in join_all(loads).await {
        assert_eq!(found, 1);
        assert!(connections <= 1 + MAX_READERS, "{connections}");
    }
}

#[tokio::test]
async fn unread_loads_keep_no_other_load_waiting() {
    let (_place, sqlite, maps) = filled(16, 3_500).await;
    let loads = maps.iter().map(|map| sqlite.load(map, Wanted::All));
    let mut loads = join_all(loads).await;
    assert_eq!(count(&sqlite, &maps[0]).await, 3_500);
    for load in loads.drain(..) {
        let records = load.unwrap().into_records().await.unwrap();
        assert_eq!(records.len(), 3_500);
    }
}
