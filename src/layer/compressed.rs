//! A layer that compresses large values.

use async_trait::async_trait;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    Layer,
    chain::IntoLayer,
    frame::{self, Frame, Magic, Parsed},
    transform::{self, Decoded, Transform},
};
use crate::{
    batch::{Batch, Committed},
    error::Result,
    load::{Load, Wanted},
    name::MapName,
    provider::{Capabilities, Provider},
    record::Payload,
};

mod algorithm;

use algorithm::{Algorithm, Compressor, STORED};

/// The first bytes of a compressed value.
const MAGIC: Magic = *b"\xffPfC";

const MIN_SIZE: usize = 512;

/// Larger values are stored uncompressed, and a record that claims to be larger is damaged: so
/// a stored record cannot demand an allocation of any size.
const MAX_LENGTH: usize = 256 << 20;

/// Compresses large values, with LZ4 or Zstandard.
///
/// A value of at least [`min_size`](Self::min_size) bytes is compressed if that saves a
/// quarter, and stored as [bytes](crate::Encoding::Bytes). All other values are stored as they
/// are. The layer also reads uncompressed values, and values of the other algorithm if its
/// feature is enabled. So it can be added to a store with data, and the algorithm, the level and
/// the size can be changed at any time. To remove it, [`copy`](crate::copy) the maps: without the
/// layer, compressed values are unreadable.
///
#[cfg_attr(feature = "lz4", doc = "```")]
#[cfg_attr(not(feature = "lz4"), doc = "```ignore")]
/// use persistify::{Compressed, Memory, PersistentMap, ProviderExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// let store = Memory::new().layer(Compressed::lz4().min_size(1_000));
/// let pages = PersistentMap::builder(store, "pages").open().await?;
/// pages.insert_and_save("index", "<p>Hello</p>".repeat(1_000)).await?;
/// # pages.close().await
/// # }
/// ```
///
/// # Order
///
/// Encryption goes below: `store.layer(Encrypted::new(keys)).layer(Compressed::lz4())`.
/// Encrypted values do not compress; the layer `Encrypted` refuses a compressing layer below
/// itself. The length of a compressed value reveals something about its content, even if it is
/// encrypted: do not compress values that mix secrets with the input of an attacker who can see
/// their sizes.
///
/// # When not to use it
///
/// - If people or other programs read the store: compressed values are bytes, and base64 in JSON
///   files and in columns of `jsonb`, `json` and `text`.
/// - On adopted tables and columns that take JSON only. There, a commit with a large value is
///   refused as `Unsupported`.
/// - On Postgres, if disk space is the only concern: it compresses large values itself.
///
/// # Cost
///
/// LZ4 is faster, and Zstandard compresses better. A compressed value has a header of 24 bytes.
/// A batch is processed on a blocking thread if its large values have 16 KiB or more together,
/// and a page of a load if its values stored as bytes do. A batch without large values is passed
/// on as it is.
///
/// # Damaged values
///
/// A header and a checksum reveal damage. A damaged value is loaded as the stored bytes, which
/// a map treats as [unreadable](crate::Map::unreadable). Values of more than 256 MiB are
/// stored uncompressed, so a record cannot demand more memory than that.
///
/// # Errors
///
/// In addition to those of the provider, `load` and `commit` return:
///
/// - `Invalid` for a level of Zstandard that is not between 1 and 22.
/// - `Unsupported` if the provider does not take [bytes](Capabilities::bytes), or if a value was
///   compressed with an algorithm that is not compiled in; the error names the feature. Also if
///   a later version of the crate has stored the value. If the answer to a commit contains such
///   a value, the outcome counts as unknown.
/// - `Unavailable` if Zstandard gets no memory, or while the runtime shuts down.
///
/// Cancel safety is that of the provider.
#[derive(Clone, Debug)]
pub struct Compressed<P = ()> {
    inner: P,
    options: Options,
}

#[derive(Clone, Copy, Debug)]
struct Options {
    algorithm: Algorithm,
    min_size: usize,
}

impl Compressed {
    /// Compresses with LZ4, which is faster than Zstandard.
    #[cfg(feature = "lz4")]
    #[cfg_attr(docsrs, doc(cfg(feature = "lz4")))]
    pub const fn lz4() -> Self {
        Self::with(Algorithm::Lz4)
    }

    /// Compresses with Zstandard, which makes values smaller than LZ4. The level is 1 to 22; 3 is
    /// usual. High levels take much more time and memory to compress. The level does not matter
    /// for reading. Another level is `Invalid` when a map is opened.
    #[cfg(feature = "zstd")]
    #[cfg_attr(docsrs, doc(cfg(feature = "zstd")))]
    pub const fn zstd(level: i32) -> Self {
        Self::with(Algorithm::Zstd { level })
    }

    const fn with(algorithm: Algorithm) -> Self {
        let min_size = MIN_SIZE;
        let options = Options {
            algorithm,
            min_size,
        };
        Self { inner: (), options }
    }

    /// Sets the size from which values are compressed, in bytes: 512 by default. Values of more
    /// than 256 MiB are never compressed.
    #[must_use]
    pub const fn min_size(mut self, bytes: usize) -> Self {
        self.options.min_size = bytes;
        self
    }
}

impl<P: Provider> IntoLayer<P> for Compressed {
    type Layer = Compressed<P>;

    fn into_layer(self, inner: P) -> Compressed<P> {
        let options = self.options;
        Compressed { inner, options }
    }
}

impl<P: Provider> Compressed<P> {
    fn check(&self) -> Result<()> {
        self.options.algorithm.check()?;
        transform::check_bytes(&self.inner, "Compressed")
    }
}

#[async_trait]
impl<P: Provider> Layer for Compressed<P> {
    fn inner(&self) -> &dyn Provider {
        &self.inner
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities().with_compressed()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.check()?;
        let load = self.inner.load(map, wanted).await?;
        Ok(transform::decoded(self.options, map, load))
    }

    /// A repeated batch is identical, because compression is deterministic. (After an update of
    /// this crate it may differ, but writers do not outlive the process, and stores recognise a
    /// repeat by its id alone.)
    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.check()?;
        let stored = transform::encoded(&self.options, batch).await?;
        let answer = self.inner.commit(&stored).await;
        transform::decoded_answer(&self.options, batch, answer)
    }
}

impl Transform for Options {
    fn concerns(&self, payload: &Payload) -> bool {
        self.is_large(payload) || frame::is_framed(MAGIC, payload)
    }

    fn encode(&self, batch: &Batch) -> Result<Batch> {
        let mut compressor = self.algorithm.compressor()?;
        transform::with_values(batch, |_, _, payload| self.stored(&mut compressor, payload))
    }

    fn decode(&self, _map: &MapName, _key: &str, stored: &Payload) -> Result<Decoded> {
        let frame = match Frame::parse(MAGIC, stored) {
            Parsed::Plain => return Ok(Decoded::Unchanged),
            Parsed::Damaged => return Ok(Decoded::Damaged),
            Parsed::Later(version) => return Err(frame::unknown_form("Compressed", version)),
            Parsed::Frame(frame) => frame,
        };
        let value = value_of(&frame)?;
        Ok(value.map(|value| value.with_schema(stored.schema)).into())
    }
}

impl Options {
    fn is_large(self, payload: &Payload) -> bool {
        (self.min_size..=MAX_LENGTH).contains(&payload.bytes.len())
    }

    fn stored(self, compressor: &mut Compressor, payload: &Payload) -> Result<Payload> {
        if self.is_large(payload) {
            let body = compressor.compress(&payload.bytes)?;
            let compressed = framed(self.algorithm.kind(), payload, &body);
            // Some stores keep bytes as base64, which is a third longer.
            if compressed.bytes.len() <= payload.bytes.len() / 4 * 3 {
                return Ok(compressed);
            }
        }
        // The program's own bytes that begin with the magic would be taken for a frame.
        let is_ambiguous = frame::is_framed(MAGIC, payload);
        Ok(if is_ambiguous {
            framed(STORED, payload, &payload.bytes)
        } else {
            payload.clone()
        })
    }
}

/// The head of a frame: the encoding, the length and the checksum of the value.
type Head = [u8; 13];

fn framed(kind: u8, payload: &Payload, body: &[u8]) -> Payload {
    let length = u32::try_from(payload.bytes.len()).unwrap_or(u32::MAX);
    let encoding = frame::byte_of(payload.encoding);
    let mut head = vec![encoding];
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&checksum(encoding, &payload.bytes));
    let mut frame = Frame::begin(MAGIC, kind, &head, body.len());
    frame.extend_from_slice(body);
    Payload::binary(frame).with_schema(payload.schema)
}

fn value_of(frame: &Frame<'_>) -> Result<Option<Payload>> {
    let Ok(&[encoding, a, b, c, d, ref sum @ ..]) = <&Head>::try_from(frame.head) else {
        return Ok(None);
    };
    let length = u32::from_le_bytes([a, b, c, d]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let bytes = match frame.kind {
        STORED => Some(frame.body.to_vec()),
        _ if length > MAX_LENGTH => None,
        kind => algorithm::decompress(kind, frame.body, length)?,
    };
    let intact = bytes.filter(|bytes| checksum(encoding, bytes) == *sum);
    Ok(intact.and_then(|bytes| frame::payload_of(encoding, bytes)))
}

fn checksum(encoding: u8, bytes: &[u8]) -> [u8; 8] {
    xxh3_64_with_seed(bytes, encoding.into()).to_le_bytes()
}

#[cfg(test)]
mod tests;
