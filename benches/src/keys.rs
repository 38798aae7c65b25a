//! The keys that both sides are given.

/// So many different keys, in order.
#[must_use]
pub fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("customer:{n:08}")).collect()
}

/// The same keys in an order that is random, and the same in every run.
///
/// They are copied in that order: else the benches would measure how long it
/// takes to find the keys to ask for.
#[must_use]
pub fn shuffled(keys: &[String]) -> Vec<String> {
    let mut order: Vec<_> = keys.iter().collect();
    fastrand::Rng::with_seed(42).shuffle(&mut order);
    order.into_iter().cloned().collect()
}
