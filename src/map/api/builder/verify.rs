//! Which values are decoded again before they are saved.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The first 1,000 values are verified, then one in 100.
const SAMPLED_FIRST: u64 = 1_000;
const SAMPLED_OF: u64 = 100;

/// Which values are decoded again from their JSON text before they are saved; see
/// [`verify`](super::Builder::verify).
///
/// Some values can be serialized by serde but not deserialized, for example:
///
/// - a map with keys that are not strings (`HashMap<u32, _>`), or a `u128`, inside
///   a tagged enum, an untagged enum or a flattened field;
/// - a field that is skipped when serialized and has no default;
/// - a value that its own `Deserialize` rejects.
///
/// One such record would keep the whole map from opening. The map therefore refuses
/// the value when it is saved ([`Refused`](crate::ErrorKind::Refused)). The error
/// names the type and the place in the value (`.by_player["7"]`); other entries are
/// not affected. This holds for every way to save: flushes, saves that wait,
/// conditional saves, batches, transactions, imports, merged values and migrated
/// values.
///
/// The background task verifies. Plain writes do not wait for it, no lock is held
/// meanwhile, and the decoded copy is dropped at once.
///
/// # Limits
///
/// The check proves that the text decodes to a value of the type, not that it equals
/// the original. `Some(None)` decodes to `None`, a variant of an untagged enum may
/// decode to another variant with the same text, and fields that `Serialize`
/// leaves out are lost. The text is decoded as the map hands it to the provider,
/// by the same build of the program.
///
/// # Values that are always refused
///
/// Independent of this setting, a NaN or an infinity is refused, because JSON
/// cannot express it. So is a value with more than 127 nested arrays and objects
/// (or 512 levels, counting options and newtypes), because serde does not read it.
/// Levels are counted during serialization, so such a value does not overflow the
/// stack. (Levels that a `Serialize` hides from serde by calling another
/// `Serialize` with the same serializer, as untagged and transparent types do, are
/// not counted. A type with such deep recursion also needs its own `Drop`.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verify {
    /// Verify every value; the default. Encoding and verifying a struct of 100
    /// bytes takes 3 to 6 times as long as encoding alone: less than a microsecond
    /// more, on the background task.
    #[default]
    Always,
    /// Verify the first 1,000 values that are encoded after the map was opened,
    /// then one in 100, counted over all keys and all ways to save.
    ///
    /// Gives up the promise that the map opens again. It detects a type that never
    /// decodes, but may miss a rare value. Then the next `open` fails, unless
    /// unreadable records are [allowed](super::Builder::allow_unreadable).
    Sampled,
    /// Verify no value. Gives up the promise that the map opens again: the next
    /// `open` detects a value that does not decode.
    Never,
}

/// Chooses the values to verify.
pub(crate) struct Verifier {
    verify: Verify,
    encoded: AtomicU64,
}

impl Verifier {
    pub(crate) fn new(verify: Verify) -> Self {
        Self {
            verify,
            encoded: AtomicU64::new(0),
        }
    }

    /// Whether the value that was just encoded is to be verified.
    pub(crate) fn is_due(&self) -> bool {
        match self.verify {
            Verify::Always => true,
            Verify::Never => false,
            Verify::Sampled => {
                let encoded = self.encoded.fetch_add(1, Relaxed);
                encoded < SAMPLED_FIRST || encoded % SAMPLED_OF == 0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_verification_takes_the_first_thousand_and_then_one_in_a_hundred() {
        let verifier = Verifier::new(Verify::Sampled);
        let due: Vec<_> = (0..1_500).map(|_| verifier.is_due()).collect();
        assert!(due[..1_000].iter().all(|due| *due));
        let later: Vec<_> = (1_000..1_500).filter(|n| due[*n]).collect();
        assert_eq!(later, [1_000, 1_100, 1_200, 1_300, 1_400]);
    }
}
