//! Which numbers `jsonb` takes: it keeps them as `numeric`.

/// As many digits before the point does a `numeric` have.
const MAX_WHOLE: i64 = 131_072;
/// As many after it.
const MAX_FRACTION: i64 = 16_383;

/// Whether a number in that JSON is beyond these.
pub(super) fn overflow(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = match first {
            b'"' => after_string(tail),
            b'0'..=b'9' => {
                let is_part =
                    |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                let (number, tail) = rest.split_at(rest.iter().take_while(|b| is_part(b)).count());
                if is_beyond(number) {
                    return true;
                }
                tail
            }
            _ => tail,
        };
    }
    false
}

fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some((&first, tail)) = rest.split_first() {
        rest = match first {
            b'"' => return tail,
            b'\\' => tail.get(1..).unwrap_or_default(),
            _ => tail,
        };
    }
    rest
}

fn is_beyond(number: &[u8]) -> bool {
    let mut parts = number.splitn(2, |byte| matches!(byte, b'e' | b'E'));
    let digits = parts.next().unwrap_or_default();
    let exponent = parts.next().map_or(0, exponent_of);
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = digits.split_at(point.unwrap_or(digits.len()));
    let fraction = fraction.get(1..).unwrap_or_default();
    let zeros = whole.iter().chain(fraction).take_while(|b| **b == b'0');
    let (zeros, all) = (zeros.count(), whole.len() + fraction.len());
    let is_large = zeros < all && moved(whole.len(), exponent) - signed(zeros) > MAX_WHOLE;
    is_large || moved(fraction.len(), exponent.saturating_neg()) > MAX_FRACTION
}

fn moved(digits: usize, exponent: i64) -> i64 {
    // Far beyond all of them, and far from the end of the numbers.
    signed(digits) + exponent.clamp(-(1 << 40), 1 << 40)
}

fn signed(digits: usize) -> i64 {
    i64::try_from(digits).unwrap_or(i64::MAX >> 1)
}

/// One that is too long to be read is beyond all of them.
fn exponent_of(text: &[u8]) -> i64 {
    let beyond = match text.first() {
        Some(b'-') => i64::MIN,
        _ => i64::MAX,
    };
    let text = std::str::from_utf8(text).unwrap_or_default();
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
            assert_eq!(overflow(text.as_bytes()), beyond, "{text}");
        }
    }
}
