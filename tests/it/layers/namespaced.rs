//! Namespaces: each tenant sees its own maps only, on every provider.

mod tenants;

use persistify::{
    ErrorKind, Expect, MapName, Memory, Namespaced, Otherwise, PersistentMap, Provider, Result,
    Transaction,
    testing::{Faulty, conformance},
};

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
