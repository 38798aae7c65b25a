//! What a meta file ends with: the checksum of all before it, and then perhaps a
//! mark.

use xxhash_rust::xxh3::xxh3_128;

use super::mark::{self, Mark};

/// What is around the digits of the checksum.
pub(super) const CHECKSUM: (&str, &str) = ("\"checksum\": \"", "\"\n}\n");
const DIGITS: usize = 32;

/// The file itself, and what follows it.
pub(super) fn parted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = CHECKSUM.1.as_bytes();
    let at = bytes.windows(end.len()).rposition(|found| found == end)?;
    bytes.split_at_checked(at + end.len())
}

/// How many bytes at the end of the file tell its checksum and its mark.
pub(super) const BYTES: u64 = (DIGITS + CHECKSUM.1.len() + mark::BYTES) as u64;

/// The checksum that a file names which ends with these bytes, and its mark.
pub(super) fn read(bytes: &[u8]) -> Option<(u128, Mark)> {
    let (text, rest) = parted(bytes)?;
    let before = text.strip_suffix(CHECKSUM.1.as_bytes())?;
    let digits = before.get(before.len().checked_sub(DIGITS)?..)?;
    let checksum = number_of(std::str::from_utf8(digits).ok()?)?;
    Some((checksum, Mark::read(rest)?))
}

/// The checksum at the end, if it is that of what is before it.
pub(super) fn checked(bytes: &[u8]) -> Option<u128> {
    let before = bytes.strip_suffix(CHECKSUM.1.as_bytes())?;
    let (before, digits) = before.split_at_checked(before.len().checked_sub(DIGITS)?)?;
    let checksum = number_of(std::str::from_utf8(digits).ok()?)?;
    let body = before.strip_suffix(CHECKSUM.0.as_bytes())?;
    (xxh3_128(body) == checksum).then_some(checksum)
}

pub(super) fn number_of(hex: &str) -> Option<u128> {
    u128::from_str_radix(hex, 16).ok()
}
