//! A cache with a time to live that survives a restart, for values that are expensive
//! to fetch.
//!
//! ```text
//! cargo run --example ttl_cache
//! ```

use std::{
    convert::Infallible,
    error::Error,
    path::Path,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use persistify::{CachingMap, Sqlite};

static FETCHED: AtomicU32 = AtomicU32::new(0);

/// A slow operation, such as a query or a request to another server.
async fn fetch(city: &str) -> Result<String, Infallible> {
    FETCHED.fetch_add(1, SeqCst);
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(format!("sunny in {city}"))
}

async fn open(db: &Path) -> persistify::Result<CachingMap<String>> {
    CachingMap::builder(Sqlite::open(db).await?, "weather")
        .time_to_live(Duration::from_secs(2))
        .open()
        .await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let db = folder.path().join("cache.db");
    let weather = open(&db).await?;

    // 20 concurrent callers need one value, which is fetched once.
    let ask = |_| weather.get_or_try_insert_with("Oslo", || fetch("Oslo"));
    for answer in join_all((0..20).map(ask)).await {
        assert_eq!(answer?, "sunny in Oslo");
    }
    let fetched = FETCHED.load(SeqCst);
    println!("20 callers asked for Oslo: it was fetched {fetched} time(s)");
    assert_eq!(fetched, 1);

    // An entry can have a TTL of its own.
    weather.insert_with_ttl(
        "Rome",
        "always fine".to_owned(),
        Duration::from_secs(60 * 60),
    );
    for city in ["Oslo", "Rome"] {
        let left = weather
            .expires_at(city)
            .expect("it expires")
            .duration_since(SystemTime::now())?;
        println!("{city} expires in {left:.1?}");
    }

    weather.close().await?;
    drop(weather);
    let weather = open(&db).await?;
    println!("after a restart: {:?}", weather.snapshot());
    assert!(weather.contains_key("Rome"));

    // The restart has not extended the expiries.
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("2 s later: {:?}", weather.snapshot());
    assert_eq!((weather.get("Oslo"), weather.len()), (None, 1));
    weather.close().await?;
    Ok(())
}
