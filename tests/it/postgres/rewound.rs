//! A server that is replaced by an older copy, or by an empty database, while
//! maps are open on it.

use std::collections::BTreeMap;

use persistify::{Health, Incarnation, Rewind};

use super::*;

const DECISIONS: [Option<Rewind>; 3] = [None, Some(Rewind::SaveAgain), Some(Rewind::TakeStore)];

async fn open(database: &Database) -> PersistentMap<u64> {
    let postgres = database.connect().await;
    PersistentMap::builder(postgres, "map")
        .open()
        .await
        .unwrap()
}

/// What the map holds after the decision: both of what was acknowledged, or what
/// the server remembers, and what was pending.
fn expected(decision: Rewind, remembered: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let acknowledged = [("old", 1), ("lost", 2)];
    let held = if decision == Rewind::SaveAgain {
        &acknowledged
    } else {
        remembered
    };
    let all = held.iter().copied().chain([("pending", 3)]);
    all.map(|(key, value)| (key.to_owned(), value)).collect()
}

fn held(map: &PersistentMap<u64>) -> BTreeMap<String, u64> {
    map.iter().map(|(k, v)| (k.to_string(), v)).collect()
}

/// What the server holds, to another client.
fn stored(database: &Database) -> BTreeMap<String, u64> {
    let rows = database.witness().run("SELECT key, value FROM map_map");
    let text = |column: &Option<String>| column.clone().unwrap();
    let pair = |row: &Vec<_>| (text(&row[0]), text(&row[1]).parse().unwrap());
    rows.iter().map(pair).collect()
}

/// The map has stopped, and writes nothing; then it goes on as decided.
async fn stops_and_goes_on(
    database: &Database,
    map: &PersistentMap<u64>,
    decision: Option<Rewind>,
    remembered: &[(&str, u64)],
) {
    map.insert("pending", 3);
    let failed = map.flush().await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Rewound, "{failed:?}");
    assert!(matches!(*map.health().borrow(), Health::Rewound { .. }));
    assert_eq!((map.len(), map.pending()), (3, 1));
    let fresh = open(database).await;
    assert_eq!(fresh.len(), remembered.len());
    let Some(decision) = decision else {
        let closed = map.close().await.unwrap_err();
        assert_eq!(closed.kind(), ErrorKind::Rewound);
        return;
    };
    map.resolve_rewind(decision).await.unwrap();
    let expected = expected(decision, remembered);
    assert_eq!(held(map), expected, "{decision:?}");
    assert_eq!(stored(database), expected, "{decision:?}");
    assert!(map.health().borrow().is_healthy());
    map.close().await.unwrap();
}

/// The disk of a server was put back to its state of the night before, and the
/// server started again, while programs kept their maps open. They wrote on as if
/// nothing had happened, and what they had been told was saved was gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_server_stops_the_map_until_it_is_decided() {
    let server = Server::private();
    let database = Database::on(&server);
    for (n, decision) in DECISIONS.into_iter().enumerate() {
        let map = open(&database).await;
        map.clear_and_save().await.unwrap();
        map.insert_and_save("old", 1).await.unwrap();
        server.stop(Stop::Fast);
        server.shell(&format!("cp -R data older-{n}"));
        server.start();
        map.insert_and_save("lost", 2).await.unwrap();
        server.stop(Stop::Fast);
        server.shell(&format!("rm -R data && mv older-{n} data"));
        server.start();
        stops_and_goes_on(&database, &map, decision, &[("old", 1)]).await;
    }
}

/// A database was dropped and made anew under open maps: everything failed with
/// "lacks a table … restore it from a backup", also what would have gone on with
/// the empty database, and nothing but a restart of the program helped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_database_in_the_place_of_the_own_stops_the_map_until_it_is_decided() {
    for decision in DECISIONS {
        let database = Database::fresh();
        let map = open(&database).await;
        map.insert_and_save("old", 1).await.unwrap();
        map.insert_and_save("lost", 2).await.unwrap();
        database.make_anew();
        stops_and_goes_on(&database, &map, decision, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_goes_on_by_itself_with_an_empty_database_if_it_was_opened_to() {
    for decision in [Rewind::SaveAgain, Rewind::TakeStore] {
        let database = Database::fresh();
        let map = PersistentMap::builder(database.connect().await, "map");
        let map = map.on_rewind(decision).open().await.unwrap();
        map.insert_and_save("old", 1).await.unwrap();
        map.insert_and_save("lost", 2).await.unwrap();
        database.make_anew();
        map.insert_and_save("pending", 3).await.unwrap();
        map.flush().await.unwrap();
        assert_eq!(stored(&database), expected(decision, &[]), "{decision:?}");
        assert_eq!(held(&map), expected(decision, &[]), "{decision:?}");
    }
}

/// Loads and pings, too, find the new incarnation, and not a missing table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_database_answers_loads_and_pings_in_an_incarnation_of_its_own() {
    let database = Database::fresh();
    let postgres = database.connect().await;
    let map = name("map");
    let found = async |how: &str| -> Option<Incarnation> {
        if how == "ping" {
            return postgres.ping().await.unwrap();
        }
        postgres.load(&map, Wanted::All).await.unwrap().incarnation
    };
    let mut before = found("ping").await;
    assert!(before.is_some());
    for how in ["ping", "load"] {
        database.make_anew();
        let after = found(how).await;
        assert!(after.is_some() && after != before, "{how}");
        assert_eq!(found("ping").await, after);
        before = after;
    }
}

/// Somebody dropped one of the tables beside the maps: the others still hold what
/// they held, so it is no empty database, and nothing is made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_lacks_some_of_its_tables_is_not_taken_for_an_empty_one() {
    for table in ["meta", "maps", "writers"] {
        let database = Database::fresh();
        let map = open(&database).await;
        map.insert_and_save("k", 1).await.unwrap();
        let dropped = format!("DROP TABLE persistify_{table} CASCADE");
        database.witness().execute(dropped);
        let failed = map.insert_and_save("k", 2).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unusable, "{table}: {failed:?}");
        assert!(failed.to_string().contains("lacks a table"), "{failed}");
    }
}
