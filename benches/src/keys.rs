//! Keys for both sides.

/// Creates distinct keys, in order.
#[must_use]
pub fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("customer:{n:08}")).collect()
}

/// Copies the keys in a random order that is the same in every run.
///
/// The copies are allocated in that order; otherwise the benchmarks would measure
/// cache misses on the keys that they look up.
#[must_use]
pub fn shuffled(keys: &[String]) -> Vec<String> {
    let mut order: Vec<_> = keys.iter().collect();
    fastrand::Rng::with_seed(42).shuffle(&mut order);
    order.into_iter().cloned().collect()
}
