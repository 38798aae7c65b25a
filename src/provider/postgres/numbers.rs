//! The limits of numbers in `jsonb`, which stores them as `numeric`.

use crate::codec::json::{number::Number, tokens::tokens};

/// The maximum number of digits before the decimal point.
const MAX_WHOLE: i64 = 131_072;
/// The maximum number of digits after the decimal point.
const MAX_FRACTION: i64 = 16_383;

/// Whether the JSON text contains a number beyond these limits.
pub(super) fn overflow(text: &str) -> bool {
    let is_number =
        |token: &&str| token.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    tokens(text)
        .filter(is_number)
        .any(|token| is_beyond(Number::parse(token)))
}

fn is_beyond(
    Number {
        whole,
        fraction,
        exponent,
        ..
    }: Number<'_>,
) -> bool {
    let exponent = exponent_of(exponent);
    let zeros = whole
        .bytes()
        .chain(fraction.bytes())
        .take_while(|b| *b == b'0');
    let (zeros, all) = (zeros.count(), whole.len() + fraction.len());
    let is_large = zeros < all && moved(whole.len(), exponent) - signed(zeros) > MAX_WHOLE;
    is_large || moved(fraction.len(), exponent.saturating_neg()) > MAX_FRACTION
}

fn moved(digits: usize, exponent: i64) -> i64 {
    // Clamped beyond all limits, so that the sum cannot overflow.
    signed(digits) + exponent.clamp(-(1 << 40), 1 << 40)
}

fn signed(digits: usize) -> i64 {
    i64::try_from(digits).unwrap_or(i64::MAX >> 1)
}

/// An exponent too long for an `i64` is beyond all limits.
fn exponent_of(text: &str) -> i64 {
    let beyond = if text.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    };
    text.parse().unwrap_or(beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_beyond_where_it_is_one() {
        for (text, beyond) in [
            ("1e131071", false),
            ("1e131072", true),
            ("[0, {\"a\": -12.5E+131071}]", true),
            ("1e-16383", false),
            ("0.1e-16383", true),
            ("1e99999999999999999999", true),
            ("1e-99999999999999999999", true),
            ("0.01e131073", false),
            ("0e200000", false),
            (r#""1e200000 \" 1e200000""#, false),
            (r#"{"1e200000": 1e-5}"#, false),
        ] {
            assert_eq!(overflow(text), beyond, "{text}");
        }
    }
}
