//! Tenants on every provider: each is listed, counted, exported and dropped without the others,
//! whatever their names and those of their maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use persistify::{Memory, Namespaced, PersistentMap, Provider, Result, copy};
use proptest::prelude::*;

use crate::support::{as_it_is, open};

/// The full name of a map, from the outermost namespace to the map, and its only value.
type Maps = BTreeMap<Vec<String>, u32>;

/// Names that might collide on a file system, in a database or in an encoding.
fn difficult_name() -> impl Strategy<Value = String> {
    let parts = vec![
        "a", "A", "b", "%", "%2f", "%%", " ", ".", "..", "ä", "\\", "'", "\"", "_", "map_", "?",
    ];
    let parts = prop::collection::vec(prop::sample::select(parts), 1..3);
    let long = prop::sample::select(vec![String::new(), String::new(), "x".repeat(240)]);
    (long, parts).prop_map(|(long, parts)| long + &parts.concat())
}

/// Maps in namespaces that are nested in up to two others.
fn maps() -> impl Strategy<Value = Maps> {
    let name = prop::collection::vec(difficult_name(), 2..5);
    prop::collection::btree_map(name, 1_u32..100, 2..6)
}

type Tenant = Namespaced<Arc<dyn Provider>>;

fn tenant(store: &Arc<dyn Provider>, namespaces: &[String]) -> Result<Tenant> {
    let (last, outer) = namespaces.split_last().unwrap();
    let outer: Result<_> = outer.iter().try_fold(store.clone(), |store, name| {
        Ok(Arc::new(Namespaced::new(store, name)?) as Arc<dyn Provider>)
    });
    Namespaced::new(outer?, last)
}

/// Every namespace that has maps, directly or in a nested one.
fn namespaces(maps: &Maps) -> BTreeSet<&[String]> {
    let of = |name: &'_ Vec<String>| 1..name.len();
    maps.keys()
        .flat_map(|name| of(name).map(|end| &name[..end]))
        .collect()
}

async fn fill(store: &Arc<dyn Provider>, maps: &Maps) -> Result<()> {
    for (name, value) in maps {
        let (map, namespaces) = name.split_last().unwrap();
        let map = PersistentMap::<u32>::builder(tenant(store, namespaces)?, map);
        let map = map.open().await?;
        assert!(map.is_empty(), "{name:?}");
        map.insert_and_save("value", *value).await?;
        map.close().await?;
    }
    Ok(())
}

/// Checks that each tenant lists, counts and reads its own maps, and no others.
async fn check(store: &Arc<dyn Provider>, maps: &Maps) -> Result<()> {
    for namespaces in namespaces(maps) {
        let own = maps.keys().filter_map(|name| name.strip_prefix(namespaces));
        let own: BTreeSet<_> = own.map(|rest| rest.join("/")).collect();
        let tenant = tenant(store, namespaces)?;
        let listed = tenant.maps().await?;
        let listed: BTreeSet<_> = listed.iter().map(|map| map.as_str().to_owned()).collect();
        assert_eq!(listed, own, "{namespaces:?}");
        assert_eq!(tenant.count().await?, own.len() as u64, "{namespaces:?}");
    }
    for (name, value) in maps {
        let (map, namespaces) = name.split_last().unwrap();
        let map = PersistentMap::builder(tenant(store, namespaces)?, map);
        let map = map.open().await?;
        assert_eq!(map.snapshot(), [("value".into(), *value)].into());
        map.close().await?;
    }
    Ok(())
}

/// Exports the tenants, drops the first with all that is in it, and imports it again.
async fn check_whole(store: Arc<dyn Provider>, maps: &Maps) -> Result<()> {
    fill(&store, maps).await?;
    check(&store, maps).await?;
    let first = &maps.keys().next().unwrap()[..1];
    let dropped = tenant(&store, first)?;
    let archive = Memory::new();
    let exported = copy(&dropped, &archive, dropped.maps().await?, |_, _| {}).await?;
    assert_eq!(exported.records, dropped.count().await?);

    dropped.drop_all().await?;
    let is_left = |name: &[String]| !name.starts_with(first);
    let left = maps.iter().filter(|(name, _)| is_left(name));
    let left: Maps = left.map(|(name, value)| (name.clone(), *value)).collect();
    check(&store, &left).await?;

    let imported = copy(&archive, &dropped, archive.maps().await?, |_, _| {}).await?;
    assert_eq!(imported.records, exported.records);
    check(&store, maps).await
}

fn on_a_runtime(work: impl Future<Output = Result<()>>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
        .unwrap();
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig::with_cases(cases)
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn tenants_in_memory_are_apart(maps in maps()) {
        on_a_runtime(check_whole(Arc::new(Memory::new()), &maps));
    }
}

#[cfg(feature = "json")]
proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn tenants_in_json_files_are_apart(maps in maps()) {
        let folder = tempfile::tempdir().unwrap();
        on_a_runtime(async {
            let files = persistify::JsonFile::open(folder.path()).await?;
            check_whole(Arc::new(files), &maps).await
        });
    }
}

#[cfg(feature = "sqlite")]
proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn tenants_in_sqlite_are_apart(maps in maps()) {
        let folder = tempfile::tempdir().unwrap();
        on_a_runtime(async {
            let file = persistify::Sqlite::open(folder.path().join("maps.db")).await?;
            check_whole(Arc::new(file), &maps).await
        });
    }

    #[test]
    fn tenants_in_adopted_tables_of_sqlite_are_apart(maps in maps()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("maps.db");
        let other = rusqlite::Connection::open(&path).unwrap();
        let mut builder = persistify::Sqlite::builder(&path);
        for (n, name) in maps.keys().enumerate().filter(|(n, _)| n % 2 == 0) {
            let table = "(key TEXT PRIMARY KEY, value TEXT NOT NULL)";
            other.execute_batch(&format!("CREATE TABLE theirs{n} {table}")).unwrap();
            builder = builder.table(name.join("/"), format!("theirs{n}"));
        }
        on_a_runtime(async {
            let store: Arc<dyn Provider> = Arc::new(builder.open().await?);
            fill(&store, &maps).await?;
            check(&store, &maps).await
        });
        check_tables(&maps, |sql| other.query_row(sql, [], |row| row.get(0)).unwrap());
    }
}

#[cfg(feature = "postgres")]
proptest! {
    #![proptest_config(cases(3))]

    #[test]
    fn tenants_in_postgres_are_apart(maps in maps()) {
        let database = crate::postgres::Database::fresh();
        on_a_runtime(async {
            let store = persistify::Postgres::connect(database.url()).await?;
            check_whole(Arc::new(store), &maps).await
        });
    }

    #[test]
    fn tenants_in_adopted_tables_of_postgres_are_apart(maps in maps()) {
        let database = crate::postgres::Database::fresh();
        let other = database.witness();
        let mut builder = persistify::Postgres::builder(database.url());
        for (n, name) in maps.keys().enumerate().filter(|(n, _)| n % 2 == 0) {
            other.execute(format!("CREATE TABLE theirs{n} (key text PRIMARY KEY, value jsonb)"));
            builder = builder.table(name.join("/"), format!("theirs{n}"));
        }
        on_a_runtime(async {
            let store: Arc<dyn Provider> = Arc::new(builder.connect().await?);
            fill(&store, &maps).await?;
            check(&store, &maps).await
        });
        check_tables(&maps, |sql| other.cell(sql).unwrap());
    }
}

/// Checks that every second map is in its adopted table, alone.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn check_tables(maps: &Maps, one: impl Fn(&str) -> String) {
    for (n, value) in maps.values().enumerate().filter(|(n, _)| n % 2 == 0) {
        let stored = one(&format!("SELECT CAST(value AS text) FROM theirs{n}"));
        assert_eq!(stored, value.to_string());
        let rows = one(&format!("SELECT CAST(count(*) AS text) FROM theirs{n}"));
        assert_eq!(rows, "1");
    }
}

/// The program of a tenant keeps its map open while the tenant is counted and exported.
#[tokio::test]
async fn a_tenant_is_counted_and_exported_while_its_maps_are_open() {
    let tenant = Namespaced::new(Memory::new(), "acme").unwrap();
    let map = open::<u32>(tenant.clone(), "stock", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    assert_eq!(tenant.count().await.unwrap(), 1);
    let archive = Memory::new();
    let maps = tenant.maps().await.unwrap();
    copy(&tenant, &archive, maps, |_, _| {}).await.unwrap();
    map.insert_and_save("b", 2).await.unwrap();
    assert_eq!(tenant.count().await.unwrap(), 2);
    map.close().await.unwrap();
    let copied = open::<u32>(archive, "stock", as_it_is).await;
    assert_eq!(copied.snapshot(), [("a".into(), 1)].into());
}
