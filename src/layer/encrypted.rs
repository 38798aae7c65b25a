//! A layer that encrypts values.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use parking_lot::RwLock;

use super::{
    Layer,
    chain::IntoLayer,
    transform::{self, Decoded, Transform},
};
use crate::{
    batch::{Batch, Committed},
    error::{Error, ErrorKind, Result},
    load::{Load, Wanted},
    name::MapName,
    provider::{Capabilities, Provider},
    record::Payload,
};

pub(crate) mod keys;
mod repeats;
pub(crate) mod rewrite;
mod sealing;

use keys::Keys;
use repeats::Repeats;
use sealing::Sealed;

/// Encrypts values with XChaCha20-Poly1305, so that the store never sees them.
///
/// Each value is encrypted with a random nonce of 24 bytes and bound to its map and its key:
/// it is invalid anywhere else. Its encoding and its schema version are protected as well.
/// Values are stored as [bytes](crate::Encoding::Bytes).
///
/// ```
/// use persistify::{Encrypted, Keys, Memory, PersistentMap, ProviderExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// # let (new, old) = ([1; 32], [2; 32]);
/// let keys = Keys::new("2026-11", new)?.and("2026-05", old)?;
/// let store = Memory::new().layer(Encrypted::new(keys));
/// let patients = PersistentMap::builder(store, "patients").open().await?;
/// patients.insert_and_save("ada", "born 1815".to_owned()).await?;
/// # patients.close().await
/// # }
/// ```
///
/// # Threat model
///
/// The layer protects the content of values from a person who reads the files, the database, its
/// backups or the network, and detects values that such a person changes or moves. It does
/// **not** hide keys of entries, names of maps, ids of encryption keys, the number of entries,
/// sizes of values, schema versions, expiries and times of writing. It does not detect that an
/// entry was deleted, that its expiry or its time of writing was changed, or that an older value of
/// the same key was put back. Encryption keys and values are in the memory of the process.
///
/// # Rotation
///
/// The first of the [`Keys`] encrypts; the others only decrypt. To rotate, give every process
/// the new key as an older one first, then make it the current one, with
/// [`set_keys`](Self::set_keys) while maps are open. Values get the new key when they are next
/// written, or all at once by [`rewrite_with_current_key`](Self::rewrite_with_current_key). After
/// 2^80 values encrypted with one key, the probability that two nonces are equal is below 2^-32.
///
/// # Order
///
/// Compression goes above: `store.layer(Encrypted::new(keys)).layer(Compressed::lz4())`.
/// Encrypted values do not compress, so a layer that compresses below this one is an error. A
/// journal goes below; above, it would hold plain text. A value is bound to the name of its map
/// as this layer sees it: a [namespace](crate::Namespaced) above the layer is part of the name,
/// so that values cannot be moved between tenants. Keep the order once there is data.
///
/// [`copy`](crate::copy) reads and writes through the layer. A map that is renamed inside the
/// store is unreadable.
///
/// # When not to use it
///
/// - To protect the data on a stolen disk: encrypt the disk, which also hides keys, names and
///   sizes.
/// - If other programs read the values, and on adopted tables, which take JSON only: there, a
///   commit is refused as `Unsupported`.
///
/// # Cost
///
/// Each value is copied and encrypted, and grows by 64 bytes plus the id of the key (1 to 64
/// bytes); stores that keep bytes as base64 need a third more. Batches and pages with 16 KiB of
/// values or more are processed on a blocking thread. The last batch of each writer, for at most 32
/// writers, is kept in memory until it is acknowledged, so that a repeat is identical.
///
/// # Errors
///
/// In addition to those of the provider, `load` and `commit` return:
///
/// - `Unusable`, naming its id, if a key is missing, or if another key has its id. The load
///   fails as a whole, so no map opens without these values. An open map goes on once
///   [`set_keys`](Self::set_keys) supplies the key.
/// - `Invalid` if a value is not encrypted and [`allow_plain`](Self::allow_plain) is not set, and
///   for a layer that compresses below this one.
/// - `Unsupported` if the provider does not take [bytes](Capabilities::bytes), or if a later
///   version of the crate has encrypted a value.
/// - `Unavailable` if the operating system has no random numbers, or the runtime shuts down.
/// - `Refused` if a value is too large for the cipher.
///
/// If the answer to a commit contains a value that cannot be decrypted for these reasons, the
/// outcome counts as unknown.
///
/// A value that was damaged, changed or moved is loaded as the stored bytes, which a map treats
/// as [unreadable](crate::Map::unreadable): it is reported, and copied aside before it is
/// overwritten. The copy contains the encrypted bytes, encrypted once more.
///
/// Cancel safety is that of the provider.
#[derive(Clone)]
pub struct Encrypted<P = ()> {
    inner: P,
    shared: Shared,
    repeats: Arc<Repeats>,
}

/// The keys, shared by all clones.
#[derive(Clone)]
struct Shared {
    keys: Arc<RwLock<Arc<Keys>>>,
    allow_plain: bool,
}

impl Encrypted {
    /// Encrypts with the current one of these keys. Values that are not encrypted are refused;
    /// see [`allow_plain`](Self::allow_plain).
    pub fn new(keys: Keys) -> Self {
        let keys = Arc::new(RwLock::new(Arc::new(keys)));
        Self {
            inner: (),
            shared: Shared {
                keys,
                allow_plain: false,
            },
            repeats: Arc::default(),
        }
    }

    /// Also reads values that are not encrypted, for a store that was used without this layer.
    /// They are encrypted when they are next written.
    ///
    /// This removes a protection: a person who can write to the store can then replace
    /// encrypted values with plain ones of their choice. Set it only until the maps are encrypted:
    /// open the store, [rewrite](Self::rewrite_with_current_key) its maps, and remove the option.
    /// Old files, backups and free pages of the store still contain the plain values.
    #[must_use]
    pub fn allow_plain(mut self) -> Self {
        self.shared.allow_plain = true;
        self
    }
}

impl<P: Provider> IntoLayer<P> for Encrypted {
    type Layer = Encrypted<P>;

    fn into_layer(self, inner: P) -> Encrypted<P> {
        let Self {
            shared, repeats, ..
        } = self;
        Encrypted {
            inner,
            shared,
            repeats,
        }
    }
}

impl<P> Encrypted<P> {
    /// Replaces the keys, for all clones of the layer and while maps are open. Commits that
    /// begin later encrypt with the new current key.
    pub fn set_keys(&self, keys: Keys) {
        *self.shared.keys.write() = Arc::new(keys);
    }
}

impl<P: Provider> Encrypted<P> {
    fn check(&self) -> Result<()> {
        transform::check_bytes(&self.inner, "Encrypted")?;
        if !self.inner.capabilities().compressed {
            return Ok(());
        }
        let message = "a layer below Encrypted compresses, but encrypted values do not compress; \
                       use the order `store.layer(Encrypted::new(keys)).layer(Compressed::lz4())`";
        Err(Error::new(ErrorKind::Invalid, message))
    }
}

#[async_trait]
impl<P: Provider> Layer for Encrypted<P> {
    fn inner(&self) -> &dyn Provider {
        &self.inner
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities().with_encrypted()
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        self.check()?;
        let load = self.inner.load(map, wanted).await?;
        Ok(transform::decoded(self.shared.clone(), map, load))
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        self.check()?;
        let encrypted = match self.repeats.find(batch) {
            Some(encrypted) => encrypted,
            None => transform::encoded(&self.shared, batch).await?,
        };
        // Before the store sees it: if this future is dropped meanwhile, the next attempt is a
        // repeat.
        self.repeats.add(batch, &encrypted);
        let answer = self.inner.commit(&encrypted).await;
        let answer = transform::decoded_answer(&self.shared, batch, answer);
        if answer.is_ok() {
            self.repeats.acknowledged(batch);
        }
        answer
    }

    async fn release(&self, map: &MapName) -> Result<()> {
        self.repeats.released(map);
        self.inner.release(map).await
    }
}

impl Shared {
    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read())
    }
}

impl Transform for Shared {
    fn concerns(&self, _payload: &Payload) -> bool {
        true
    }

    fn encode(&self, batch: &Batch) -> Result<Batch> {
        let keys = self.keys();
        let key = keys.current_key();
        transform::with_values(batch, |map, entry, payload| {
            sealing::seal(key, map, entry, payload)
        })
    }

    fn decode(&self, map: &MapName, entry: &str, stored: &Payload) -> Result<Decoded> {
        match sealing::inspect(&self.keys(), stored)? {
            Sealed::By(key, body) => Ok(sealing::unseal(key, map, entry, body).into()),
            Sealed::Damaged => Ok(Decoded::Damaged),
            Sealed::Plain if self.allow_plain => Ok(Decoded::Unchanged),
            Sealed::Plain => Err(not_encrypted()),
        }
    }
}

fn not_encrypted() -> Error {
    let message = "a stored value is not encrypted; nothing was overwritten; if the store was used \
                   without encryption, set `Encrypted::allow_plain` and rewrite its maps with \
                   `rewrite_with_current_key`; otherwise, another program has put the value there";
    Error::new(ErrorKind::Invalid, message)
}

impl<P: fmt::Debug> fmt::Debug for Encrypted<P> {
    /// Prints the ids of the keys, and neither keys nor values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted")
            .field("keys", &self.shared.keys())
            .field("allow_plain", &self.shared.allow_plain)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
