//! Either type of map, with the methods that both have. A value consists of its schema version and
//! a token that identifies it.

use std::{collections::BTreeMap, time::Duration, time::SystemTime};

use persistify::{
    CachingMap, Expect, Health, PersistentMap, Result, Revision, Stats, Transaction,
    UnreadableRecord,
};

use super::book::Held;

pub(super) type Value = (u32, u64);

#[derive(Clone)]
pub(super) enum Either {
    Plain(PersistentMap<Value>),
    Caching(CachingMap<Value>),
}

/// A map, and the schema version of the values that are written to it.
#[derive(Clone)]
pub(super) struct Tested {
    pub(super) map: Either,
    pub(super) shape: u32,
}

use Either::{Caching, Plain};

impl Tested {
    fn value(&self, token: u64) -> Value {
        (self.shape, token)
    }

    fn token(&self, value: Value) -> u64 {
        assert_eq!(value.0, self.shape, "{value:?} was not upgraded");
        value.1
    }

    pub(super) fn insert(&self, key: &str, token: u64, ttl: Option<Duration>) -> Option<u64> {
        let value = self.value(token);
        let old = match (&self.map, ttl) {
            (Caching(map), Some(ttl)) => map.insert_with_ttl(key, value, ttl),
            (Caching(map), None) => map.insert(key, value),
            (Plain(map), _) => map.insert(key, value),
        };
        old.map(|value| self.token(value))
    }

    pub(super) fn update(&self, key: &str, token: u64) -> bool {
        let new = self.value(token);
        let change = |value: &mut Value| *value = new;
        let updated = match &self.map {
            Plain(map) => map.update(key, change),
            Caching(map) => map.update(key, change),
        };
        updated.is_some()
    }

    pub(super) fn remove(&self, key: &str) -> bool {
        let removed = match &self.map {
            Plain(map) => map.remove(key),
            Caching(map) => map.remove(key),
        };
        removed.is_some()
    }

    pub(super) fn clear(&self) {
        match &self.map {
            Plain(map) => map.clear(),
            Caching(map) => map.clear(),
        }
    }

    /// All entries, looked up one by one.
    pub(super) fn held(&self) -> Held {
        let (pairs, len): (BTreeMap<_, _>, _) = match &self.map {
            Plain(map) => (map.iter().collect(), map.len()),
            Caching(map) => (map.iter().collect(), map.len()),
        };
        assert_eq!(pairs.len(), len);
        let pairs = pairs.into_iter();
        pairs
            .map(|(key, value)| (key.to_string(), self.token(value)))
            .collect()
    }

    pub(super) fn with_revision(&self, key: &str) -> Option<(u64, Revision)> {
        let found = match &self.map {
            Plain(map) => map.get_with_revision(key),
            Caching(map) => map.get_with_revision(key),
        };
        found.map(|(value, revision)| (self.token(value), revision))
    }

    pub(super) fn expires_at(&self, key: &str) -> Option<SystemTime> {
        match &self.map {
            Plain(_) => None,
            Caching(map) => map.expires_at(key),
        }
    }

    pub(super) async fn insert_and_save(
        &self,
        key: &str,
        token: u64,
        ttl: Option<Duration>,
    ) -> Result<bool> {
        let value = self.value(token);
        let saved = match (&self.map, ttl) {
            (Caching(map), Some(ttl)) => map.insert_with_ttl_and_save(key, value, ttl).await,
            (Caching(map), None) => map.insert_and_save(key, value).await,
            (Plain(map), _) => map.insert_and_save(key, value).await,
        };
        saved.map(|_| true)
    }

    /// Returns whether there was an entry to update.
    pub(super) async fn update_and_save(&self, key: &str, token: u64) -> Result<bool> {
        let new = self.value(token);
        let change = |value: &mut Value| *value = new;
        let saved = match &self.map {
            Plain(map) => map.update_and_save(key, change).await,
            Caching(map) => map.update_and_save(key, change).await,
        };
        saved.map(|updated| updated.is_some())
    }

    pub(super) async fn remove_and_save(&self, key: &str) -> Result<bool> {
        let saved = match &self.map {
            Plain(map) => map.remove_and_save(key).await,
            Caching(map) => map.remove_and_save(key).await,
        };
        saved.map(|_| true)
    }

    pub(super) async fn clear_and_save(&self) -> Result<bool> {
        let saved = match &self.map {
            Plain(map) => map.clear_and_save().await,
            Caching(map) => map.clear_and_save().await,
        };
        saved.map(|()| true)
    }

    pub(super) async fn save_if(&self, key: &str, token: u64, expect: Expect) -> Result<bool> {
        let value = self.value(token);
        let saved = match &self.map {
            Plain(map) => map.save_if(key, value, expect).await,
            Caching(map) => map.save_if(key, value, expect).await,
        };
        saved.map(|_| true)
    }

    /// Returns whether there was an entry to update.
    pub(super) async fn update_in_store(&self, key: &str, token: u64) -> Result<bool> {
        let change = |_| self.value(token);
        let saved = match &self.map {
            Plain(map) => map.update_in_store(key, change).await,
            Caching(map) => map.update_in_store(key, change).await,
        };
        saved.map(|updated| updated.is_some())
    }

    /// Puts one key and removes another, in one commit.
    pub(super) async fn swap(&self, put: &str, token: u64, removed: &str) -> Result<bool> {
        let value = self.value(token);
        let saved = match &self.map {
            Plain(map) => {
                map.batch()
                    .insert(put, value)
                    .remove(removed)
                    .commit()
                    .await
            }
            Caching(map) => {
                map.batch()
                    .insert(put, value)
                    .remove(removed)
                    .commit()
                    .await
            }
        };
        saved.map(|_| true)
    }

    pub(super) fn put_in(&self, tx: &mut Transaction, key: &str, token: u64) {
        let value = self.value(token);
        match &self.map {
            Plain(map) => tx.insert(map, key, value),
            Caching(map) => tx.insert(map, key, value),
        };
    }

    pub(super) fn expect_in(&self, tx: &mut Transaction, key: &str, expect: Expect) {
        match &self.map {
            Plain(map) => tx.require(map, key, expect),
            Caching(map) => tx.require(map, key, expect),
        };
    }

    pub(super) async fn flush(&self) -> Result<()> {
        match &self.map {
            Plain(map) => map.flush().await,
            Caching(map) => map.flush().await,
        }
    }

    pub(super) async fn reload(&self) -> Result<()> {
        match &self.map {
            Plain(map) => map.reload().await,
            Caching(map) => map.reload().await,
        }
    }

    pub(super) async fn close_within(&self, limit: Duration) -> Result<()> {
        match &self.map {
            Plain(map) => map.close_within(limit).await,
            Caching(map) => map.close_within(limit).await,
        }
    }

    pub(super) async fn export(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        let exported = match &self.map {
            Plain(map) => map.export(&mut lines).await,
            Caching(map) => map.export(&mut lines).await,
        };
        exported.unwrap();
        lines
    }

    pub(super) async fn import(&self, lines: &[u8]) -> Result<u64> {
        match &self.map {
            Plain(map) => map.import(lines).await,
            Caching(map) => map.import(lines).await,
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let (stats, pending, refused) = match &self.map {
            Plain(map) => (map.stats(), map.pending(), map.refused().len()),
            Caching(map) => (map.stats(), map.pending(), map.refused().len()),
        };
        assert_eq!((stats.pending, stats.refused), (pending, refused));
        stats
    }

    pub(super) fn retry_refused(&self) -> usize {
        match &self.map {
            Plain(map) => map.retry_refused(),
            Caching(map) => map.retry_refused(),
        }
    }

    pub(super) fn unreadable(&self) -> Vec<UnreadableRecord> {
        match &self.map {
            Plain(map) => map.unreadable(),
            Caching(map) => map.unreadable(),
        }
    }

    pub(super) fn health(&self) -> Health {
        let health = match &self.map {
            Plain(map) => map.health(),
            Caching(map) => map.health(),
        };
        let health = health.borrow();
        health.clone()
    }
}
