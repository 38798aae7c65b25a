//! Keys in the tables that are made here: as they are, except for characters and
//! lengths that a text column or its index does not take.

use std::{borrow::Cow, fmt};

use sha2::{Digest, Sha256};

/// The longest key that is stored as it is, in bytes. A row of an index ends at
/// about 2,700 bytes, and the stand-in of a longer key has to fit in as well.
const MAX_SHORT: usize = 2_000;

/// The hex digits of a SHA-256.
const DIGEST_CHARS: usize = 64;

/// A key as its row has it.
///
/// A long key is kept whole in a column of its own; in the column of the keys
/// it has a stand-in, its beginning and a digest. The beginning is longer than
/// any short key, so a stand-in is never taken for a key, and both sort as the
/// keys do: only stand-ins with the same beginning are out of order.
#[derive(Debug)]
pub(super) struct StoredKey<'a> {
    /// The key itself.
    pub(super) plain: &'a str,
    /// The key in its column.
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

/// The beginning of a stand-in, which all long keys that begin so share.
pub(super) fn beginning(stand_in: &str) -> &str {
    let end = stand_in.len().saturating_sub(DIGEST_CHARS);
    let mut ends = (0..=end)
        .rev()
        .filter(|end| stand_in.is_char_boundary(*end));
    &stand_in[..ends.next().unwrap_or(0)]
}

/// A key above every stand-in that begins so, and below the keys after them.
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

/// A text column takes any character but U+0000. It is written as two, and so
/// is the one that stands for the escape; the order of the bytes stays.
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

/// The key that was stored so.
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
                // At the end, or before another character, it is no escape of ours.
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
