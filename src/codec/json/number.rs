//! Numbers as they are written: decimals of any length.

/// The parts of a number token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number<'a> {
    pub(crate) is_negative: bool,
    /// The digits before the point.
    pub(crate) whole: &'a str,
    /// The digits after the point.
    pub(crate) fraction: &'a str,
    /// The power of ten, `"0"` if none is written.
    pub(crate) exponent: &'a str,
}

impl<'a> Number<'a> {
    /// Takes a number token apart.
    pub(crate) fn parse(token: &'a str) -> Self {
        let (is_negative, unsigned) = match token.strip_prefix('-') {
            Some(unsigned) => (true, unsigned),
            None => (false, token),
        };
        let (digits, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        Self {
            is_negative,
            whole,
            fraction,
            exponent,
        }
    }

    /// Appends the canonical form of the number: a sign, the digits without zeros at
    /// either end, and a power of ten.
    pub(super) fn put_canonical(&self, out: &mut Vec<u8>) {
        let digits = self.whole.bytes().chain(self.fraction.bytes());
        let digits = digits.skip_while(|digit| *digit == b'0');
        out.push(if self.is_negative { b'-' } else { b'+' });
        let start = out.len();
        out.extend(digits);
        let written = out.len();
        let last = out.iter().rposition(|byte| *byte != b'0');
        out.truncate(last.map_or(start, |last| last + 1).max(start));
        if out.len() == start {
            // Zero has neither a sign nor a power.
            out[start - 1] = b'0';
            return;
        }
        let Ok(exponent) = self.exponent.parse::<i64>() else {
            // Kept as text: no store could write such a number in another way.
            return out.extend(self.exponent.bytes());
        };
        let dropped = (written - out.len()) as i128;
        let power = i128::from(exponent) + dropped - self.fraction.len() as i128;
        out.extend(power.to_le_bytes());
    }
}
