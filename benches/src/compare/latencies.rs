//! Quantiles of latencies.

pub const LATENCIES: [&str; 3] = ["p50 of insert", "p99 of insert", "p99.9 of insert"];
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// The quantiles that `LATENCIES` names.
pub fn quantiles(mut latencies: Vec<f64>) -> Vec<f64> {
    latencies.sort_unstable_by(f64::total_cmp);
    QUANTILES.map(|quantile| at(&latencies, quantile)).to_vec()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position in the list"
)]
fn at(sorted: &[f64], quantile: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * quantile) as usize]
}
