//! A map as JSON Lines, for another program or another day.

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

/// How many bytes are gathered before they are written.
const BUFFER: usize = 64 << 10;
/// How many entries are written between two yields to other tasks.
const AT_ONCE: usize = 1_024;

/// # Exports
///
/// An export is JSON Lines, for people and other programs to read and write:
///
/// ```text
/// {"format":"persistify","version":1,"map":"stock","schema":0}
/// {"key":"apple","value":3}
/// {"key":"guest","value":5,"expires_at":1767225600000,"time_to_live":60000}
/// ```
///
/// The first line says which [shape](crate::Builder::schema) the values
/// are of; times are milliseconds since 1970. `time_to_live`, in milliseconds, is
/// that of an entry [with its own](crate::CachingMap::insert_with_ttl). Readers and writers are those of
/// tokio: files, sockets and compressors come as such, as do `&[u8]` and
/// `Vec<u8>`, and none of them holds up a thread of the runtime.
impl<V: Serialize, L: Lifetime<V>> Map<V, L> {
    /// Writes all entries, one after the other, as they are in memory; returns
    /// how many.
    ///
    /// Like [`iter`](Self::iter) it is weakly consistent: an entry that is there
    /// all the time comes up once; one that comes, goes or changes meanwhile, as
    /// it was, as it is, or not at all. No lock is held between two entries, and
    /// the lines are not held in memory. What is pending is among them;
    /// [unreadable](Self::unreadable) records are not.
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
    /// `Unusable` if the writer fails; `Refused`, naming the key, if a value
    /// cannot be written as JSON. What was written before stays written.
    pub async fn export(&self, writer: impl AsyncWrite + Unpin) -> Result<u64> {
        let mut out = BufWriter::with_capacity(BUFFER, writer);
        let header = Header::new(&self.core.name, self.core.options.shapes.current);
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
            // A writer that never waits must not keep the thread to itself.
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
    /// The line of an entry, if it lives; not a read.
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
