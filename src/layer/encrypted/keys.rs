//! Encryption keys and their ids.

use std::{fmt, sync::Arc};

use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::Aead};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// The maximum length of a key id, in bytes.
const MAX_ID: usize = 64;

/// The number of bytes that tell a wrong key from a damaged value.
pub(super) const FINGERPRINT: usize = 8;

/// The keys of an [`Encrypted`](super::Encrypted) layer: the current one, which encrypts, and
/// older ones, which only decrypt.
///
/// A key is 32 random bytes; a password is not a key. The id of a key is stored with each
/// value, unencrypted. It is 1 to 64 bytes of UTF-8 without control characters, and must
/// always name the same key.
///
/// The keys are wiped from memory when the last clone is dropped, and `Debug` prints only their
/// ids. The array that is passed here is a copy; wipe your own.
///
/// ```
/// use persistify::Keys;
///
/// # fn main() -> persistify::Result<()> {
/// # let (new, old) = ([1; 32], [2; 32]);
/// let keys = Keys::new("2026-11", new)?.and("2026-05", old)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Keys {
    current: Arc<Key>,
    older: Vec<Arc<Key>>,
}

pub(super) struct Key {
    pub(super) id: Arc<str>,
    /// It wipes the key when it is dropped.
    pub(super) cipher: XChaCha20Poly1305,
    pub(super) fingerprint: [u8; FINGERPRINT],
}

impl Keys {
    /// Creates keys with this current key.
    ///
    /// # Errors
    ///
    /// `Invalid` for an id out of its bounds, and for a key of zeros.
    pub fn new(id: impl AsRef<str>, key: [u8; 32]) -> Result<Self> {
        Ok(Self {
            current: Arc::new(Key::new(id.as_ref(), key)?),
            older: Vec::new(),
        })
    }

    /// Adds an older key, which only decrypts.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and `Invalid` if another key has this id.
    pub fn and(mut self, id: impl AsRef<str>, key: [u8; 32]) -> Result<Self> {
        let key = Key::new(id.as_ref(), key)?;
        if self.find(&key.id).is_some() {
            return Err(invalid(&key.id, "another key has this id"));
        }
        self.older.push(Arc::new(key));
        Ok(self)
    }

    /// The id of the current key.
    pub fn current(&self) -> &str {
        &self.current.id
    }

    pub(super) fn current_key(&self) -> &Arc<Key> {
        &self.current
    }

    pub(super) fn find(&self, id: &str) -> Option<&Arc<Key>> {
        self.all().find(|key| &*key.id == id)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Key>> {
        std::iter::once(&self.current).chain(&self.older)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.all().map(|key| &*key.id);
        f.debug_list().entries(ids).finish()
    }
}

impl Key {
    fn new(id: &str, key: [u8; 32]) -> Result<Self> {
        let key = Zeroizing::new(key);
        if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
            let problem = "the id must be 1 to 64 bytes of UTF-8 without control characters";
            return Err(invalid(id, problem));
        }
        if *key == [0; 32] {
            return Err(invalid(
                id,
                "all bytes of the key are 0; use 32 random bytes",
            ));
        }
        let cipher = XChaCha20Poly1305::new((&*key).into());
        let fingerprint = fingerprint(&cipher)?;
        let id = id.into();
        Ok(Self {
            id,
            cipher,
            fingerprint,
        })
    }
}

/// A part of the tag of an empty message under a fixed nonce. It reveals nothing about the key: it
/// is the same for every value, and a random nonce equals this one with a probability of 2^-192.
fn fingerprint(cipher: &XChaCha20Poly1305) -> Result<[u8; FINGERPRINT]> {
    let tag = cipher.encrypt(&XNonce::from([0xff; 24]), &b""[..]);
    let tag = tag.ok().and_then(|tag| tag.first_chunk().copied());
    tag.ok_or_else(|| Error::new(ErrorKind::Invalid, "the cipher does not work"))
}

fn invalid(id: &str, problem: &str) -> Error {
    let message = format!("the encryption key {id:?} cannot be used: {problem}");
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The feature `zeroize` of the cipher is on.
    #[test]
    fn a_key_is_wiped_when_it_is_dropped() {
        fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        wiped::<XChaCha20Poly1305>();
    }
}
