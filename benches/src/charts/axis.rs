//! Logarithmic axes.

use std::ops::Range;

use plotters::coord::combinators::{BindKeyPoints, IntoLogRange, LogCoord, WithKeyPoints};

use crate::numbers;

pub type LogAxis = WithKeyPoints<LogCoord<f64>>;

pub fn logarithmic(range: &Range<f64>, labels: &[f64]) -> LogAxis {
    let axis = range.clone().log_scale();
    axis.with_key_points(labels.to_vec())
}

/// From the least of these values to the greatest, with some space around them.
pub fn around(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let greatest = values.fold(0.0, f64::max);
    least / 1.6..greatest * 1.6
}

/// The powers of ten in this range.
pub fn decades(range: &Range<f64>) -> Vec<f64> {
    let powers = (0..18).map(|power| 10_f64.powi(power));
    powers.filter(|power| range.contains(power)).collect()
}

/// A power of ten, in nanoseconds: `1 µs`.
pub fn decade(nanoseconds: f64) -> String {
    numbers::time(nanoseconds)
        .replace(".00 ", " ")
        .replace(".0 ", " ")
}
