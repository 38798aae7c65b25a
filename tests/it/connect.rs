//! Providers that are opened by a URL or a configuration.

mod errors;
mod files;
mod layers;
#[cfg(feature = "postgres")]
mod postgres;
mod random;
mod secrets;

use persistify::{Memory, Provider, ProviderConfig, Result, connect};

use crate::support::{as_it_is, open};

#[tokio::test]
async fn memory_is_opened_by_its_scheme() {
    let store = connect("memory:").await.unwrap();
    assert_eq!(store.capabilities(), Memory::new().capabilities());
    let other = connect("memory:").await.unwrap();
    open::<u32>(store.clone(), "stock", as_it_is)
        .await
        .close()
        .await
        .unwrap();
    let map = open::<u32>(store, "stock", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    // Each call makes a store of its own.
    assert!(other.maps().await.unwrap().is_empty());
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_provider_with_layers_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("json:{}?namespace=acme", folder.path().display());
    persistify::testing::conformance(async || connect(&url).await).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn json_files_are_opened_by_the_path_of_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a+b? c");
    let written = path
        .to_str()
        .unwrap()
        .replace('?', "%3f")
        .replace(' ', "%20");
    let url = format!("json:{written}?file.Config=Config.json&file_mode=0640&max_journal=1MiB");
    let store = connect(url).await.unwrap();
    let map = open::<u32>(store, "Config", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    map.close().await.unwrap();
    let file = path.join("Config.json");
    assert!(file.exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }
}

#[cfg(feature = "json")]
#[tokio::test]
async fn namespaces_nest_from_left_to_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let store = connect(format!("json:{path}?namespace=acme/eu"))
        .await
        .unwrap();
    let map = open::<u32>(store.clone(), "users", as_it_is).await;
    map.insert_and_save("ada", 1).await.unwrap();
    map.close().await.unwrap();
    store.close().await.unwrap();
    let bare = connect(format!("json:{path}")).await.unwrap();
    let maps = bare.maps().await.unwrap();
    assert_eq!(maps, [persistify::MapName::parse("acme/eu/users").unwrap()]);
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_is_opened_by_the_path_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    let table = "CREATE TABLE Limits (key TEXT PRIMARY KEY, Value TEXT NOT NULL)";
    other.execute_batch(table).unwrap();
    let url = format!(
        "sqlite:{}?table.acme/limits=Limits&columns.value=Value",
        path.display()
    );
    let store = connect(url + "&namespace=acme&synchronous=normal")
        .await
        .unwrap();
    let limits = open::<u32>(store, "limits", as_it_is).await;
    limits.insert_and_save("rate", 5).await.unwrap();
    let stored = other.query_row("SELECT Value FROM Limits", [], |row| row.get(0));
    let stored: String = stored.unwrap();
    assert_eq!(stored, "5");
}

/// An option that is given without a value, in another order, or between empty ones.
#[test]
fn the_order_of_options_does_not_matter() {
    let shown = |url: &str| format!("{:?}", ProviderConfig::new(url));
    let one = shown("memory:?namespace=acme&keep_tombstones=1h");
    assert_eq!(one, shown("memory:?&keep_tombstones=1h&&namespace=acme&"));
    assert!(one.contains("acme"), "{one}");
}

#[tokio::test]
async fn a_configuration_that_is_not_valid_opens_nothing() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    for scheme in ["json", "sqlite"] {
        let url = format!("{scheme}:{}/new?namespac=a", folder.path().display());
        assert!(connect(&url).await.is_err(), "{url}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    Ok(())
}
