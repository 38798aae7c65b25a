//! Which values are read back before they are saved.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// So many values are read back, and then one of so many.
const SAMPLED_FIRST: u64 = 1_000;
const SAMPLED_OF: u64 = 100;

/// Which values are read back from their own JSON text before they are saved; see
/// [`verify`](super::Builder::verify).
///
/// serde writes values that it cannot read again, for example:
///
/// - a map whose keys are not strings (`HashMap<u32, _>`), or a `u128`, in an enum
///   with a tag, in an untagged enum or in a flattened field;
/// - a field that is skipped when it is written and has no default;
/// - a value that its own `Deserialize` does not let pass.
///
/// One such record keeps the whole map from opening. So the map refuses the value
/// when it is saved ([`Refused`](crate::ErrorKind::Refused)). The error names the
/// type and the place (`.by_player["7"]`); other entries are not affected. This
/// holds for every way to save: flushes, saves that wait, conditional saves,
/// batches, transactions, imports, merged values and rewritten older shapes.
///
/// The background task does it. No plain write waits for it, no lock is held
/// meanwhile, and the copy is dropped at once.
///
/// # What it does not promise
///
/// A value of the type comes out; it need not be equal. `Some(None)` comes back
/// as `None`, a variant of an untagged enum may come back as another one that has
/// the same text, and what `Serialize` leaves out is gone. The text is read as
/// the map hands it to the provider, by the program that writes it.
///
/// # What is always refused
///
/// Whatever is chosen here: a NaN or an infinity, which JSON cannot express; and a
/// value with more than 127 arrays and objects within each other (or 512 levels,
/// with options and newtypes), which serde does not read. Levels are counted
/// while the value is written, so such a value does not overflow the stack.
/// (Levels that a `Serialize` hides from serde, by calling another `Serialize`
/// with the same serializer, as untagged and transparent types do, are not seen.
/// And a type that holds itself this often needs a `Drop` of its own.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verify {
    /// Every value; the default. To encode a struct of 100 bytes and read it back
    /// takes 3 to 6 times as long as to encode it: less than a microsecond more,
    /// on the background task.
    #[default]
    Always,
    /// The first 1,000 values that the map encodes after it was opened, and from
    /// then on one in 100, counted over all keys and all ways to save.
    ///
    /// Gives up the promise that the map opens again. It finds a type that never
    /// reads back, and may miss a rare value of it. Then the next `open` fails,
    /// unless unreadable records are
    /// [allowed](super::Builder::allow_unreadable).
    Sampled,
    /// None. Gives up the promise that the map opens again: a value that cannot
    /// be read back is found out by the next `open`.
    Never,
}

/// Chooses the values that are read back.
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

    /// Whether the value that was encoded just now is to be read back.
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
    fn the_first_thousand_and_then_one_of_a_hundred_are_sampled() {
        let verifier = Verifier::new(Verify::Sampled);
        let due: Vec<_> = (0..1_500).map(|_| verifier.is_due()).collect();
        assert!(due[..1_000].iter().all(|due| *due));
        let later: Vec<_> = (1_000..1_500).filter(|n| due[*n]).collect();
        assert_eq!(later, [1_000, 1_100, 1_200, 1_300, 1_400]);
    }
}
