//! Namespaces: each tenant sees its own maps only, on every provider.

use std::collections::BTreeMap;

use persistify::{
    ErrorKind, Expect, MapName, Memory, Namespaced, Otherwise, PersistentMap, Provider, Result,
    Transaction, copy,
    testing::{Faulty, conformance},
};
use proptest::prelude::*;

use crate::support::{Pen, as_it_is, name, open, put};

#[tokio::test]
async fn a_namespace_in_memory_conforms() {
    let store = Memory::new();
    conformance(async || Namespaced::new(store.clone(), "acme")).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_namespace_in_json_files_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || persistify::JsonFile::open(folder.path()).await;
    conformance(async || Namespaced::new(open().await?, "Acme & Söhne")).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_nested_namespace_in_sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maps.db");
    let open = async || persistify::Sqlite::open(&path).await;
    conformance(async || Namespaced::new(Namespaced::new(open().await?, "a")?, "b")).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_namespace_in_postgres_conforms() {
    let database = crate::postgres::Database::fresh();
    let open = async || persistify::Postgres::connect(database.url()).await;
    conformance(async || Namespaced::new(open().await?, "acme")).await;
}

/// Names of tenants and maps that might collide.
fn difficult_name() -> impl Strategy<Value = String> {
    let parts = prop::collection::vec(
        prop::sample::select(vec!["a", "b", "%", "%2f", " ", ".."]),
        1..3,
    );
    parts.prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tenants_never_see_the_maps_of_others(
        entries in prop::collection::btree_map((difficult_name(), difficult_name()), 1_u32..100, 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check_isolation(&entries)).unwrap();
    }
}

async fn check_isolation(entries: &BTreeMap<(String, String), u32>) -> Result<()> {
    let store = Memory::new();
    for ((tenant, map), value) in entries {
        let tenant = Namespaced::new(store.clone(), tenant)?;
        let map: PersistentMap<u32> = PersistentMap::builder(tenant, map).open().await?;
        assert!(map.is_empty());
        map.insert_and_save("value", *value).await?;
        map.close().await?;
    }
    for ((tenant, map), value) in entries {
        let own = entries.keys().filter(|(other, _)| other == tenant);
        let expected: Vec<_> = own.map(|(_, map)| map.as_str()).collect();
        let tenant = Namespaced::new(store.clone(), tenant)?;
        let mut listed = tenant.maps().await?;
        listed.sort_unstable();
        assert!(listed.iter().map(MapName::as_str).eq(expected));
        let map: PersistentMap<u32> = PersistentMap::builder(tenant, map).open().await?;
        assert_eq!(map.snapshot(), [("value".into(), *value)].into());
        map.close().await?;
    }
    Ok(())
}

#[tokio::test]
async fn dropping_a_tenant_leaves_the_others() {
    let store = Memory::new();
    for tenant in ["a", "ab", "b"] {
        let tenant = Namespaced::new(store.clone(), tenant).unwrap();
        for map in ["one", "two"] {
            let map = open::<u32>(tenant.clone(), map, as_it_is).await;
            map.insert_and_save("key", 1).await.unwrap();
            map.close().await.unwrap();
        }
    }
    Namespaced::new(store.clone(), "a")
        .unwrap()
        .drop_all()
        .await
        .unwrap();
    let mut left: Vec<_> = store.maps().await.unwrap();
    left.sort_unstable();
    let left: Vec<_> = left.iter().map(MapName::as_str).collect();
    assert_eq!(left, ["ab/one", "ab/two", "b/one", "b/two"]);
}

#[tokio::test]
async fn a_transaction_of_a_tenant_commits_and_a_conflict_names_its_own_map() {
    let tenant = Namespaced::new(Memory::new(), "acme").unwrap();
    let from = open::<u32>(tenant.clone(), "from", as_it_is).await;
    let to = open::<u32>(tenant.clone(), "to", as_it_is).await;
    let mut transfer = Transaction::new(&tenant);
    transfer.insert(&from, "a", 1).insert(&to, "a", 2);
    transfer.commit().await.unwrap();
    let again = to.save_if("a", 3, Expect::Absent).await.unwrap_err();
    assert_eq!(
        (again.kind(), again.map()),
        (ErrorKind::Conflict, Some("to"))
    );
}

#[tokio::test]
async fn a_skipped_change_is_reported_with_the_name_in_the_namespace() {
    let tenant = Namespaced::new(Memory::new(), "acme").unwrap();
    let (mut pen, map) = (Pen::new(), name("stock"));
    pen.put(&tenant, &map, "a", "1").await;
    let change = put("a", "2").expect(Expect::Absent, Otherwise::Skip);
    let committed = tenant
        .commit(&pen.changes(&map, vec![change]))
        .await
        .unwrap();
    assert_eq!(committed.skipped[0].map.as_str(), "stock");
}

#[tokio::test]
async fn an_error_names_the_map_of_the_namespace() {
    let store = Faulty::new(Memory::new());
    let tenant = Namespaced::new(store.clone(), "acme").unwrap();
    let map = open::<u32>(tenant, "stock", as_it_is).await;
    store.refuse(["a"]);
    let refused = map.insert_and_save("a", 1).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.map()),
        (ErrorKind::Refused, Some("stock"))
    );
}

/// A map beside the namespace copies its unreadable records to `acme/unreadable`.
#[tokio::test]
async fn the_copies_of_unreadable_records_belong_to_no_tenant() {
    let store = Memory::new();
    let aside = open::<u32>(store.clone(), "acme", as_it_is).await;
    aside.close().await.unwrap();
    let tenant = Namespaced::new(store.clone(), "acme").unwrap();
    let opened: Result<PersistentMap<u32>> =
        PersistentMap::builder(tenant, "unreadable").open().await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Invalid);
    for name in ["unreadable", "", "a/b"] {
        let error = Namespaced::new(store.clone(), name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn a_tenant_is_exported_by_a_copy_of_its_maps() {
    let (store, archive) = (Memory::new(), Memory::new());
    let tenant = Namespaced::new(store, "acme").unwrap();
    let map = open::<u32>(tenant.clone(), "stock", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.close().await.unwrap();
    let maps = tenant.maps().await.unwrap();
    copy(
        &tenant,
        &archive,
        maps.iter().map(MapName::as_str),
        |_, _| {},
    )
    .await
    .unwrap();
    let copied = open::<u32>(archive, "stock", as_it_is).await;
    assert_eq!(copied.get("a"), Some(1));
}
