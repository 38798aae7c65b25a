//! Access to the entry of one key.

use std::time::SystemTime;

use super::{locked_entry::LockedEntry, reentrancy::ReentrancyGuard};
use crate::{
    error::Result,
    map::{core::Core, lifetime::Lifetime, shared::Shared},
};

impl<V, L: Lifetime<V>> Core<V, L> {
    /// Calls `look` on the entry, if it is live, with its shard locked for reading.
    pub(crate) fn look<R>(&self, key: &str, look: impl FnOnce(&V) -> R) -> Option<R> {
        let (found, touch) = {
            let _guard = ReentrancyGuard::enter();
            let hash = self.shards.hash(key);
            let shard = self.shards.read(hash);
            let (value, lease) = shard.find(hash, key)?.slot.live(&self.lifetime)?;
            let touch = self.lifetime.used(lease);
            (look(value), touch)
        };
        if touch {
            self.touch(key);
        }
        Some(found)
    }

    /// Like [`look`](Self::look), but does not count as a read: it extends
    /// nothing.
    pub(crate) fn look_aside<R>(&self, key: &str, look: impl FnOnce(&V) -> R) -> Option<R> {
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(key);
        let shard = self.shards.read(hash);
        let (value, _) = shard.find(hash, key)?.slot.live(&self.lifetime)?;
        Some(look(value))
    }

    /// Stores an expiry that a read has moved.
    pub(crate) fn touch(&self, key: &str) {
        // A closed map no longer writes to the store.
        let _ = self.alter(key, |entry| entry.touch());
    }

    /// Removes the entry from memory, and then from the store, if it has expired.
    ///
    /// While the map closes, this may be too late for the last commit: then the
    /// next opening finds the entry expired and removes it.
    ///
    /// # Errors
    ///
    /// `Closed` if the map is closed (not while it closes).
    pub(crate) fn expire(&self, key: &str) -> Result<()> {
        let expired = self.alter_if(Shared::check_not_closed, key, |entry| entry.expire())?;
        if let Some(value) = expired {
            self.lifetime.expired(key, value);
        }
        Ok(())
    }

    /// When the entry expires; does not count as a read.
    pub(crate) fn expires_at(&self, key: &str) -> Option<SystemTime> {
        let _guard = ReentrancyGuard::enter();
        let hash = self.shards.hash(key);
        let shard = self.shards.read(hash);
        let (_, lease) = shard.find(hash, key)?.slot.live(&self.lifetime)?;
        self.lifetime.expires_at(lease)
    }

    /// Changes the entry of a key, with its shard locked for writing.
    ///
    /// # Errors
    ///
    /// `Closed`; `change` was not called.
    pub(crate) fn alter<R>(
        &self,
        key: &str,
        change: impl FnOnce(&mut LockedEntry<'_, V, L>) -> R,
    ) -> Result<R> {
        self.alter_if(Shared::check_open, key, change)
    }

    fn alter_if<R>(
        &self,
        allowed: impl FnOnce(&Shared) -> Result<()>,
        key: &str,
        change: impl FnOnce(&mut LockedEntry<'_, V, L>) -> R,
    ) -> Result<R> {
        let (done, expired) = {
            let _guard = ReentrancyGuard::enter();
            let hash = self.shards.hash(key);
            let shard = self.shards.write(hash);
            // Checked under the lock: `close` first changes the phase and then
            // passes through every lock, after which no writer is left that saw the
            // phase open.
            allowed(self)?;
            let mut entry = LockedEntry::new(self, shard, hash, key);
            (change(&mut entry), entry.into_expired())
        };
        for value in expired {
            self.lifetime.expired(key, value);
        }
        Ok(done)
    }
}
