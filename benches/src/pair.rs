//! Paired measurements of two sides.

use std::time::{Duration, Instant};

use crate::VERIFY;

/// A comparison of Persistify with a peer that does equivalent work.
pub struct Comparison {
    /// The operation and the peer.
    pub name: String,
    /// The number of operations per side and round.
    pub operations: usize,
    /// The number of rounds.
    pub rounds: usize,
    /// The ratio to reach.
    pub target: f64,
}

/// Prints the heading of the table; [`Comparison::run`] prints its lines.
pub fn print_heading() {
    println!("Verification of values before they are saved: {VERIFY:?}.");
    println!(
        "{:<52} {:>6} {:>13} {:>7} {:>11} {:>11}",
        "peer's time / our time", "ratio", "middle half", "target", "ours, ns", "peer, ns"
    );
}

impl Comparison {
    /// Measures both sides alternately and prints the median of the ratios.
    ///
    /// Each ratio compares two consecutive turns, so a temporary slowdown of the
    /// machine affects both. The order alternates between rounds. Each side returns
    /// the time of its turn.
    pub fn run(&self, mut ours: impl FnMut() -> Duration, mut peer: impl FnMut() -> Duration) {
        let (mut ratios, mut our_times, mut peer_times) = (Vec::new(), Vec::new(), Vec::new());
        // Round 0 is a warm-up.
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

/// The quantile of the values, in quarters: 2 is the median.
fn quantile(values: &mut [f64], quarters: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[(values.len() - 1) * quarters / 4]
}

/// Measures how long `work` takes.
pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
