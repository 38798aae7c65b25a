//! Export and import of a map as JSON Lines.

mod import;
mod lines;

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};

use self::lines::{Header, Line, on_a_line};
use crate::{
    codec,
    error::{Error, ErrorKind, Result},
    map::{Map, core::Core, lifetime::Lifetime, table::reentrancy::ReentrancyGuard},
};

/// The size of the write buffer, in bytes.
const BUFFER: usize = 64 << 10;
/// The number of entries written between two yields to other tasks.
const AT_ONCE: usize = 1_024;

/// # Exports
///
/// An export is JSON Lines, readable and writable by people and other programs:
///
/// ```text
/// {"format":"persistify","version":1,"map":"stock","schema":0}
/// {"key":"apple","value":3}
/// {"key":"guest","value":5,"expires_at":1767225600000,"time_to_live":60000}
/// ```
///
/// The header states the [schema version](crate::Builder::schema) of the values.
/// Times are milliseconds since 1970. `time_to_live`, in milliseconds, is present for an
/// entry [with its own](crate::CachingMap::insert_with_ttl). Readers and writers
/// are those of tokio: files, sockets, compressors, `&[u8]` and `Vec<u8>`. None of
/// them blocks a thread of the runtime.
impl<V: Serialize, L: Lifetime<V>> Map<V, L> {
    /// Writes all entries as they are in memory; returns their number.
    ///
    /// Weakly consistent, like [`iter`](Self::iter): an entry that exists during
    /// the whole export is written once; an entry that is changed meanwhile is
    /// written with its old value or with its new value; an entry that is inserted
    /// or removed meanwhile may or may not be written. No lock is held between two
    /// entries, and the export is streamed, not built in memory. Pending changes are
    /// included; [unreadable](Self::unreadable) records are not.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistify::Result<()> {
    /// # use persistify::{Memory, PersistentMap};
    /// let stock: PersistentMap<u32> = PersistentMap::builder(Memory::new(), "stock").open().await?;
    /// stock.insert("apple", 3);
    /// let mut lines = Vec::new();
    /// stock.export(&mut lines).await?;
    ///
    /// let other: PersistentMap<u32> = PersistentMap::builder(Memory::new(), "other").open().await?;
    /// assert_eq!(other.import(&lines[..]).await?, 1);
    /// assert_eq!(other.get("apple"), Some(3));
    /// # other.close().await?;
    /// # stock.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `Unusable` if the writer fails; `Refused`, naming the key, if a value cannot
    /// be encoded as JSON. Lines already written stay written.
    pub async fn export(&self, writer: impl AsyncWrite + Unpin) -> Result<u64> {
        let mut out = BufWriter::with_capacity(BUFFER, writer);
        let header = Header::new(&self.core.name, self.core.options.migrations.current);
        let header = on_a_line(&header).map_err(|cause| self.not_written(0).with_source(cause))?;
        let mut exported = 0;
        let mut written = out.write_all(&header).await;
        for keys in self.core.keys().chunks(AT_ONCE) {
            for key in keys {
                if let Some(line) = self.core.line_of(key)? {
                    written = written.and(out.write_all(&line).await);
                    exported += 1;
                }
                if written.is_err() {
                    break;
                }
            }
            // A writer that is always ready must not starve other tasks.
            tokio::task::yield_now().await;
        }
        let written = written.and(out.flush().await);
        written.map_err(|cause| self.not_written(exported).with_source(cause))?;
        Ok(exported)
    }

    fn not_written(&self, exported: u64) -> Error {
        let message = format!("the export could not be written after {exported} entries");
        Error::new(ErrorKind::Unusable, message).on_map(&self.core.name)
    }
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// The line of an entry, if it has not expired. Does not count as a read.
    fn line_of(&self, key: &Arc<str>) -> Result<Option<Vec<u8>>>
    where
        V: Serialize,
    {
        let encoded = {
            let _guard = ReentrancyGuard::enter();
            let hash = self.shards.hash(key);
            let shard = self.shards.read(hash);
            let live = shard.find(hash, key);
            let live = live.and_then(|entry| entry.slot.live(&self.lifetime));
            live.map(|(value, lease)| {
                let ends = self.lifetime.stored_expiry(lease);
                (codec::encode(value), ends, self.lifetime.own(lease))
            })
        };
        let Some((payload, expires_at, own)) = encoded else {
            return Ok(None);
        };
        let named = |error: Error| error.on_map(&self.name).on_keys([key.clone()]);
        let payload = payload.map_err(named)?;
        let line = serde_json::from_slice::<&RawValue>(&payload.bytes)
            .and_then(|value| on_a_line(&Line::new(key, value, expires_at, own)));
        line.map(Some).map_err(|cause| {
            let message = "the value cannot be written as JSON";
            named(Error::new(ErrorKind::Refused, message).with_source(cause))
        })
    }
}
