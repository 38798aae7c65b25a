//! A file whose content is replaced by an older copy while a map is open on it.

use persistify::{ErrorKind, Rewind};
use rusqlite::backup::Backup;

use super::*;
use crate::rewind::decided::{
    DECISIONS, entries, goes_on_by_itself, open as open_map, save_lost, save_old,
    stops_and_goes_on, stored,
};

impl Place {
    fn older(&self) -> PathBuf {
        self.folder.path().join("older.db")
    }

    /// Overwrites the content of the file with that of the copy, as another program.
    fn put_back(&self) {
        let older = Connection::open(self.older()).unwrap();
        let mut file = self.other();
        let backup = Backup::new(&older, &mut file).unwrap();
        let pause = Duration::from_millis(1);
        backup.run_to_completion(1_000, pause, None).unwrap();
    }
}

/// A backup was restored into a database in use, as `.restore` of the `sqlite3` shell does. The
/// map continued to write.
#[tokio::test]
async fn older_content_of_the_file_stops_the_map_until_it_is_decided() {
    for decision in DECISIONS {
        let place = Place::new();
        let sqlite = place.open().await;
        let map = open_map(sqlite.clone(), Rewind::Stop).await;
        save_old(&map).await;
        sqlite.backup(place.older()).await.unwrap();
        save_lost(&map).await;
        place.put_back();
        stops_and_goes_on(&sqlite, &map, decision, &[("old", 1)]).await;
    }
}

#[tokio::test]
async fn a_map_goes_on_by_itself_with_older_content_if_it_was_opened_to() {
    for decision in [Rewind::SaveAgain, Rewind::TakeStore] {
        let place = Place::new();
        let sqlite = place.open().await;
        let map = open_map(sqlite.clone(), decision).await;
        save_old(&map).await;
        sqlite.backup(place.older()).await.unwrap();
        save_lost(&map).await;
        place.put_back();
        goes_on_by_itself(&sqlite, &map, decision, &[("old", 1)]).await;
    }
}

/// A new file with the name of the old one is not the file that is open. Regardless of its
/// rewind option, the map writes to neither, and reads from memory still work.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_replaced_is_unusable_whatever_was_decided() {
    let place = Place::new();
    let sqlite = place.open().await;
    let map = open_map(sqlite.clone(), Rewind::TakeStore).await;
    save_old(&map).await;
    sqlite.backup(place.older()).await.unwrap();
    save_lost(&map).await;
    let aside = place.folder.path().join("aside.db");
    std::fs::rename(place.path(), &aside).unwrap();
    std::fs::copy(place.older(), place.path()).unwrap();
    let failed = map.insert_and_save("pending", 3).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
    assert_eq!((map.get("lost"), map.pending()), (Some(2), 1));
    std::fs::rename(&aside, place.path()).unwrap();
    map.flush().await.unwrap();
    let all = entries(&[("lost", 2), ("old", 1), ("pending", 3)]);
    assert_eq!(stored(&sqlite).await, all);
}
