//! The map under test: either type, with the methods that both have.

use super::*;

/// Either type of map, with the methods that both have.
pub(super) enum Tested {
    Plain(PersistentMap<u64>),
    Caching(CachingMap<u64>),
}

impl Tested {
    pub(super) fn snapshot(&self) -> HashMap<String, u64> {
        match self {
            Self::Plain(map) => map.snapshot(),
            Self::Caching(map) => map.snapshot(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(map) => map.len(),
            Self::Caching(map) => map.len(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<u64> {
        match self {
            Self::Plain(map) => map.get(key),
            Self::Caching(map) => map.get(key),
        }
    }

    pub(super) fn insert(&self, key: &str, value: u64, ttl: Option<Duration>) -> Option<u64> {
        match (self, ttl) {
            (Self::Caching(map), Some(ttl)) => map.insert_with_ttl(key, value, ttl),
            (Self::Plain(map), _) => map.insert(key, value),
            (Self::Caching(map), None) => map.insert(key, value),
        }
    }

    pub(super) fn update(&self, key: &str, value: u64) -> Option<u64> {
        let change = |old: &mut u64| std::mem::replace(old, value);
        match self {
            Self::Plain(map) => map.update(key, change),
            Self::Caching(map) => map.update(key, change),
        }
    }

    pub(super) fn remove(&self, key: &str) -> Option<u64> {
        match self {
            Self::Plain(map) => map.remove(key),
            Self::Caching(map) => map.remove(key),
        }
    }

    pub(super) fn retain(&self, keep: impl FnMut(&str, &u64) -> bool) {
        match self {
            Self::Plain(map) => map.retain(keep),
            Self::Caching(map) => map.retain(keep),
        }
    }

    pub(super) fn clear(&self) {
        match self {
            Self::Plain(map) => map.clear(),
            Self::Caching(map) => map.clear(),
        }
    }

    pub(super) async fn insert_and_save(&self, key: &str, value: u64) -> Result<Option<u64>> {
        match self {
            Self::Plain(map) => map.insert_and_save(key, value).await,
            Self::Caching(map) => map.insert_and_save(key, value).await,
        }
    }

    pub(super) async fn update_and_save(&self, key: &str, value: u64) -> Result<Option<u64>> {
        let change = |old: &mut u64| std::mem::replace(old, value);
        match self {
            Self::Plain(map) => map.update_and_save(key, change).await,
            Self::Caching(map) => map.update_and_save(key, change).await,
        }
    }

    pub(super) async fn remove_and_save(&self, key: &str) -> Result<Option<u64>> {
        match self {
            Self::Plain(map) => map.remove_and_save(key).await,
            Self::Caching(map) => map.remove_and_save(key).await,
        }
    }

    pub(super) async fn clear_and_save(&self) -> Result<()> {
        match self {
            Self::Plain(map) => map.clear_and_save().await,
            Self::Caching(map) => map.clear_and_save().await,
        }
    }

    pub(super) async fn flush(&self) -> Result<()> {
        match self {
            Self::Plain(map) => map.flush().await,
            Self::Caching(map) => map.flush().await,
        }
    }

    pub(super) async fn reload(&self) -> Result<()> {
        match self {
            Self::Plain(map) => map.reload().await,
            Self::Caching(map) => map.reload().await,
        }
    }

    pub(super) async fn close(&self) -> Result<()> {
        match self {
            Self::Plain(map) => map.close().await,
            Self::Caching(map) => map.close().await,
        }
    }
}

pub(super) async fn open<P: Provider>(
    store: &Faulty<P>,
    caching: bool,
    clock: &SystemClock,
) -> Tested {
    let interval = Duration::from_millis(50);
    let policy = RetryPolicy::default()
        .max_attempts(3)
        .base_delay(Duration::from_millis(2))
        .max_delay(Duration::from_millis(20))
        .probe_delay(Duration::from_millis(20));
    let timeout = Duration::from_millis(200);
    if caching {
        let map = CachingMap::builder(store.clone(), map_name()).clock(clock.clone());
        let map = map.batch(3, interval).retry(policy).commit_timeout(timeout);
        Tested::Caching(map.open().await.unwrap())
    } else {
        let map = PersistentMap::builder(store.clone(), map_name()).clock(clock.clone());
        let map = map.batch(3, interval).retry(policy).commit_timeout(timeout);
        Tested::Plain(map.open().await.unwrap())
    }
}
