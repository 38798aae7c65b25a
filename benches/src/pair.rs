//! Two sides measured in turns.

use std::time::{Duration, Instant};

use crate::VERIFY;

/// Ours beside a peer's, doing the same.
pub struct Comparison {
    /// What is done, and beside which peer.
    pub name: String,
    /// How many operations a side does in a round.
    pub operations: usize,
    /// How often each side has its turn.
    pub rounds: usize,
    /// The ratio that ours is to reach.
    pub target: f64,
}

/// The heading of the table that [`Comparison::run`] prints a line of.
pub fn print_heading() {
    println!("Values that are read back before they are saved: {VERIFY:?}.");
    println!(
        "{:<52} {:>6} {:>13} {:>7} {:>11} {:>11}",
        "peer's time / our time", "ratio", "middle half", "target", "ours, ns", "peer, ns"
    );
}

impl Comparison {
    /// Measures the two in turns, and prints the median of the ratios.
    ///
    /// A ratio is made of two turns that follow each other, so that whatever
    /// slows the machine down for a while slows both. Who goes first changes
    /// from round to round. Each side tells how long its turn took.
    pub fn run(&self, mut ours: impl FnMut() -> Duration, mut peer: impl FnMut() -> Duration) {
        let (mut ratios, mut our_times, mut peer_times) = (Vec::new(), Vec::new(), Vec::new());
        // The round before the first warms both up.
        for round in 0..=self.rounds {
            let (our_time, peer_time) = if round % 2 == 0 {
                let our_time = ours();
                (our_time, peer())
            } else {
                let peer_time = peer();
                (ours(), peer_time)
            };
            if round > 0 {
                our_times.push(self.nanos_each(our_time));
                peer_times.push(self.nanos_each(peer_time));
                ratios.push(peer_time.as_secs_f64() / our_time.as_secs_f64());
            }
        }
        self.print(&mut ratios, &mut our_times, &mut peer_times);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a bench counts far fewer operations than that"
    )]
    fn nanos_each(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e9 / self.operations as f64
    }

    fn print(&self, ratios: &mut [f64], our_times: &mut [f64], peer_times: &mut [f64]) {
        println!(
            "{:<52} {:>6.2} {:>13} {:>7.2} {:>11.1} {:>11.1}",
            self.name,
            quantile(ratios, 2),
            format!("{:.2} to {:.2}", quantile(ratios, 1), quantile(ratios, 3)),
            self.target,
            quantile(our_times, 2),
            quantile(peer_times, 2),
        );
    }
}

/// Below which so many quarters of the values lie.
fn quantile(values: &mut [f64], quarters: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[(values.len() - 1) * quarters / 4]
}

/// How long this takes.
pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
