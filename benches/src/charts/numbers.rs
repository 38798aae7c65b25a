//! Numbers as the charts print them.

use persistify_benches::{Unit, in_unit};

/// The number with a comma between each three digits.
pub fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The name of a work as a heading: a capital letter first, and commas in its numbers.
pub fn heading(work: &str) -> String {
    let words = work.split(' ');
    let words = words.map(|word| word.parse().map_or_else(|_| word.into(), with_commas));
    let mut text = words.collect::<Vec<_>>().join(" ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// The numbers that are words of the text.
pub fn numbers_in(text: &str) -> impl Iterator<Item = u32> {
    text.split(' ').filter_map(|word| word.parse().ok())
}

/// A number with three digits, the rest zeros: `1,230,000`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate or size is positive and far smaller than that"
)]
pub fn three_digits(value: f64) -> String {
    let step = 10_f64.powf((value.log10().floor() - 2.0).max(0.0));
    with_commas(((value / step).round() * step).round() as u64)
}

/// A time in nanoseconds, with three digits.
pub fn time(nanoseconds: f64) -> String {
    in_unit(nanoseconds, Unit::Nanoseconds)
}

/// `Medians of 3 to 9 rounds.`
pub fn medians(rounds: impl Iterator<Item = usize> + Clone) -> String {
    let fewest = rounds.clone().min().unwrap_or(0);
    let most = rounds.max().unwrap_or(0);
    match (fewest, most) {
        (_, 1) => "One round.".into(),
        _ if fewest == most => format!("Medians of {most} rounds."),
        _ => format!("Medians of {fewest} to {most} rounds."),
    }
}
