//! A server that is replaced by an older copy, or by an empty database, while
//! maps are open on it.

use persistify::{Incarnation, Rewind};

use super::*;
use crate::rewind::decided::{
    DECISIONS, goes_on_by_itself, open, save_lost, save_old, stops_and_goes_on,
};

/// A server was restored to an older state while programs had maps open. They continued to
/// write without an error, although acknowledged commits were lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_on_a_restored_server_stops_until_resolved() {
    let server = Server::private();
    for (n, decision) in DECISIONS.into_iter().enumerate() {
        let database = Database::on(&server);
        let map = open(database.connect().await, Rewind::Stop).await;
        save_old(&map).await;
        server.stop(Stop::Fast);
        server.shell(&format!("cp -R data older-{n}"));
        server.start();
        save_lost(&map).await;
        server.stop(Stop::Fast);
        server.shell(&format!("rm -R data && mv older-{n} data"));
        server.start();
        let other = database.connect().await;
        stops_and_goes_on(&other, &map, decision, &[("old", 1)]).await;
    }
}

/// A database was dropped and recreated under open maps. Every call failed with "lacks a table …
/// restore it from a backup", although the map could have continued with the empty database.
/// Only a restart of the program helped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_on_a_database_that_was_emptied_stops_until_resolved() {
    for decision in DECISIONS {
        let database = Database::fresh();
        let map = open(database.connect().await, Rewind::Stop).await;
        save_old(&map).await;
        save_lost(&map).await;
        database.make_anew();
        // The map must flush before `connect` creates the tables, so that it finds none.
        map.insert("pending", 3);
        assert_eq!(map.flush().await.unwrap_err().kind(), ErrorKind::Rewound);
        let other = database.connect().await;
        stops_and_goes_on(&other, &map, decision, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_opened_with_on_rewind_continues_on_an_emptied_database() {
    for decision in [Rewind::SaveAgain, Rewind::TakeStore] {
        let database = Database::fresh();
        let map = open(database.connect().await, decision).await;
        save_old(&map).await;
        save_lost(&map).await;
        database.make_anew();
        map.insert("pending", 3);
        map.flush().await.unwrap();
        let other = database.connect().await;
        goes_on_by_itself(&other, &map, decision, &[]).await;
    }
}

/// Loads and pings also find the new incarnation instead of a missing table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_database_answers_in_a_new_incarnation() {
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

/// One of the tables beside the maps was dropped. The others still have their rows, so this is
/// not an empty database, and no table is recreated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_lacks_some_of_its_tables_is_unusable() {
    for table in ["meta", "maps", "writers"] {
        let database = Database::fresh();
        let map = open(database.connect().await, Rewind::Stop).await;
        save_old(&map).await;
        let dropped = format!("DROP TABLE persistify_{table} CASCADE");
        database.witness().execute(dropped);
        let failed = map.insert_and_save("k", 2).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unusable, "{table}: {failed:?}");
        assert!(failed.to_string().contains("lacks a table"), "{failed}");
    }
}
