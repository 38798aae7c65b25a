//! Two tenants share one SQLite file. Each has its own maps, and is listed, counted, exported and
//! dropped without the other.
//!
//! ```text
//! cargo run --example tenants
//! ```

use std::{error::Error, fs};

use persistify::{JsonFile, Namespaced, PersistentMap, Provider, ProviderExt, Sqlite, copy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = Sqlite::open(folder.path().join("tenants.db")).await?;
    let acme = file.clone().namespace("acme")?;
    let globex = file.clone().namespace("globex")?;

    // Both have a map of the name `users`.
    add(&acme, "users", &[("ada", 36), ("alan", 41)]).await?;
    add(&acme, "stock", &[("anvil", 3)]).await?;
    add(&globex, "users", &[("hank", 44)]).await?;
    println!("Two tenants share the file tenants.db:");
    show(&acme).await?;
    show(&globex).await?;

    // An export is a copy to another provider: here to JSON files, one for each map.
    let export = folder.path().join("export");
    let files = JsonFile::open(&export).await?;
    let exported = copy(&acme, &files, acme.maps().await?, |_, _| {}).await?;
    files.close().await?;
    assert_eq!(exported.records, acme.count().await?);
    let users = fs::read_to_string(export.join("users.json"))?;
    println!("\nacme is exported. users.json:\n{}", users.trim_end());

    acme.drop_all().await?;
    println!("\nacme is dropped; globex is as before:");
    show(&acme).await?;
    show(&globex).await?;
    assert_eq!((acme.count().await?, globex.count().await?), (0, 1));
    Ok(())
}

async fn add(
    tenant: &Namespaced<Sqlite>,
    map: &str,
    entries: &[(&str, u32)],
) -> persistify::Result<()> {
    let map: PersistentMap<u32> = PersistentMap::builder(tenant.clone(), map).open().await?;
    map.extend(entries.iter().copied());
    map.close().await
}

async fn show(tenant: &Namespaced<Sqlite>) -> persistify::Result<()> {
    let (maps, records) = (tenant.maps().await?, tenant.count().await?);
    println!(
        "   {}: maps {maps:?}, records {records}",
        tenant.namespace()
    );
    Ok(())
}
