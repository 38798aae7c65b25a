//! The encoding of keys in the provider's own tables. Keys are stored unchanged, except
//! for characters and lengths that a text column or its index does not support.

use std::{borrow::Cow, fmt};

use sha2::{Digest, Sha256};

/// The maximum length in bytes of a key that is stored unchanged. An index row has at most
/// about 2,700 bytes, and the stand-in of a longer key must fit too.
const MAX_SHORT: usize = 2_000;

/// The number of hex digits of a SHA-256.
const DIGEST_CHARS: usize = 64;

/// A key as stored in its row.
///
/// A long key is stored in a column of its own; the key column contains a stand-in: the
/// beginning of the key and a digest. The beginning is longer than any short key, so a
/// stand-in never equals a key. Both sort like the keys, except that stand-ins with the
/// same beginning are in no order.
#[derive(Debug)]
pub(super) struct StoredKey<'a> {
    /// The original key.
    pub(super) plain: &'a str,
    /// The content of the key column.
    pub(super) key: Cow<'a, str>,
    /// The whole key, if it is a long one.
    pub(super) long: Option<Cow<'a, str>>,
}

impl<'a> StoredKey<'a> {
    pub(super) fn new(key: &'a str) -> Self {
        let whole = escaped(key);
        if whole.len() <= MAX_SHORT {
            return Self {
                plain: key,
                key: whole,
                long: None,
            };
        }
        let ends = MAX_SHORT + 1..whole.len();
        let mut ends = ends.filter(|end| whole.is_char_boundary(*end));
        let beginning = &whole[..ends.next().unwrap_or(whole.len())];
        let stand_in = format!("{beginning}{}", Hex(&Sha256::digest(whole.as_bytes())));
        Self {
            plain: key,
            key: stand_in.into(),
            long: Some(whole),
        }
    }
}

/// The beginning of a stand-in, shared by all long keys with the same beginning.
pub(super) fn beginning(stand_in: &str) -> &str {
    let end = stand_in.len().saturating_sub(DIGEST_CHARS);
    let mut ends = (0..=end)
        .rev()
        .filter(|end| stand_in.is_char_boundary(*end));
    &stand_in[..ends.next().unwrap_or(0)]
}

/// A key above all stand-ins with this beginning, and below the keys after them.
pub(super) fn above(beginning: &str) -> String {
    // The digits of a digest end at `f`.
    format!("{beginning}g")
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text column stores any character but U+0000. U+0000 is escaped as two characters, and
/// so is the escape character; the order of the bytes is preserved.
fn escaped(key: &str) -> Cow<'_, str> {
    if !key.contains(['\0', '\u{1}']) {
        return key.into();
    }
    let mut out = String::with_capacity(key.len() + 8);
    for char in key.chars() {
        match char {
            '\0' => out.push_str("\u{1}\u{1}"),
            '\u{1}' => out.push_str("\u{1}\u{2}"),
            other => out.push(other),
        }
    }
    out.into()
}

/// Decodes a stored key.
pub(super) fn unescaped(stored: &str) -> Cow<'_, str> {
    if !stored.contains('\u{1}') {
        return stored.into();
    }
    let mut out = String::with_capacity(stored.len());
    let mut chars = stored.chars();
    while let Some(char) = chars.next() {
        match char {
            '\u{1}' => out.push(match chars.next() {
                Some('\u{1}') => '\0',
                // At the end, or before another character, it is not an escape.
                _ => '\u{1}',
            }),
            other => out.push(other),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(key: &str) -> (String, Option<String>) {
        let stored = StoredKey::new(key);
        (stored.key.into_owned(), stored.long.map(Cow::into_owned))
    }

    #[test]
    fn keys_come_back_and_keep_their_order() {
        let mut keys: Vec<String> = [
            "", "\0", "\0\0", "\0\u{1}", "\u{1}", "\u{1}\0", "\u{2}", "a\0", "a", "a\u{1}b",
        ]
        .map(str::to_owned)
        .into();
        keys.extend(
            [1_999, 2_000, 2_001, 2_002, 5_000].map(|n| "é".repeat(n / 2) + &"k".repeat(n % 2)),
        );
        keys.extend([1_999, 2_000, 2_001, 2_002].map(|n| "k".repeat(n)));
        keys.sort_unstable();
        keys.dedup();
        let mut before: Option<String> = None;
        for key in &keys {
            let (short, long) = stored(key);
            assert!(short.len() < 2_600, "{}", short.len());
            assert!(!short.contains('\0'));
            assert_eq!(unescaped(long.as_ref().unwrap_or(&short)), *key);
            let grew = before.is_none_or(|b| {
                b < short || (long.is_some() && beginning(&b) == beginning(&short))
            });
            assert!(grew, "{key:.20?}");
            before = Some(short);
        }
    }

    #[test]
    fn all_long_keys_of_a_beginning_lie_between_it_and_above_it() {
        let keys = [
            ("k".repeat(9_999) + "K"),
            "k".repeat(10_000),
            "k".repeat(2_001),
        ];
        let first = stored(&keys[0]).0;
        for key in &keys {
            let stand_in = stored(key).0;
            assert_eq!(beginning(&stand_in), beginning(&first));
            assert!(*beginning(&first) < *stand_in && stand_in < above(beginning(&first)));
        }
        assert_ne!(stored(&keys[0]).0, stored(&keys[1]).0);
    }
}
