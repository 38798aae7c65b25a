//! A work and its contenders, measured in interleaved rounds.

use std::{thread, time::Duration};

use persistify_benches::timed;

use crate::table;

/// The role of a contender in the comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Ours,
    Peer,
    /// A store that does not wait for the disk, so it cannot be the best peer.
    LessDurable,
    /// The least that the machine needs for this work. Not a dictionary or a store.
    Limit,
}

/// The unit of a measure. Less is better in each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    Bytes,
}

/// One work, which each contender does once a round.
pub struct Work<'a> {
    name: String,
    measures: Vec<&'static str>,
    unit: Unit,
    contenders: Vec<Contender<'a>>,
}

struct Contender<'a> {
    name: String,
    fsync: &'static str,
    role: Role,
    /// Returns one number per measure.
    turn: Box<dyn FnMut() -> Vec<f64> + 'a>,
}

/// The results of one contender in one measure.
pub struct Row {
    pub work: String,
    pub measure: &'static str,
    pub contender: String,
    pub role: Role,
    pub fsync: &'static str,
    pub unit: Unit,
    pub rounds: usize,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// The limit's median divided by this one, if there is a limit.
    pub to_limit: Option<f64>,
    /// The best peer's median divided by this one, if there is a peer.
    pub to_best_peer: Option<f64>,
}

impl<'a> Work<'a> {
    /// Creates a work whose turns return one time.
    pub fn timed(name: impl Into<String>, measure: &'static str) -> Self {
        Self::measured(name, &[measure], Unit::Nanoseconds)
    }

    /// Creates a work whose turns return these measures.
    pub fn measured(name: impl Into<String>, measures: &[&'static str], unit: Unit) -> Self {
        Self {
            name: name.into(),
            measures: measures.to_vec(),
            unit,
            contenders: Vec::new(),
        }
    }

    pub fn add(
        &mut self,
        role: Role,
        name: impl Into<String>,
        fsync: &'static str,
        turn: impl FnMut() -> Vec<f64> + 'a,
    ) {
        self.contenders.push(Contender {
            name: name.into(),
            fsync,
            role,
            turn: Box::new(turn),
        });
    }

    /// Lets each contender take its turn in each round, prints the table and returns its
    /// rows.
    ///
    /// Each round starts with another contender, so that none always follows the same
    /// one. Round 0 is a warm-up.
    pub fn run(mut self, rounds: usize) -> Vec<Row> {
        let count = self.contenders.len();
        let mut results = vec![Vec::new(); count];
        for round in 0..=rounds {
            for place in 0..count {
                let at = (place + round) % count;
                let result = (self.contenders[at].turn)();
                if round > 0 {
                    results[at].push(result);
                }
            }
        }
        let rows: Vec<_> = (0..self.measures.len())
            .flat_map(|measure| self.rows(measure, &results))
            .collect();
        table::print(&rows);
        rows
    }

    fn rows(&self, measure: usize, results: &[Vec<Vec<f64>>]) -> Vec<Row> {
        let of = |at: usize| -> Vec<f64> { results[at].iter().map(|all| all[measure]).collect() };
        let medians: Vec<_> = (0..results.len()).map(|at| median(of(at))).collect();
        let best = |role| {
            let all = medians.iter().zip(&self.contenders);
            let all = all.filter(|(_, contender)| contender.role == role);
            all.map(|(median, _)| *median).min_by(f64::total_cmp)
        };
        let (limit, best_peer) = (best(Role::Limit), best(Role::Peer));
        let rows = self.contenders.iter().enumerate().map(|(at, contender)| {
            let (own, median) = (of(at), medians[at]);
            Row {
                work: self.name.clone(),
                measure: self.measures[measure],
                contender: contender.name.clone(),
                role: contender.role,
                fsync: contender.fsync,
                unit: self.unit,
                rounds: own.len(),
                median,
                min: own.iter().copied().fold(f64::INFINITY, f64::min),
                max: own.iter().copied().fold(0.0, f64::max),
                to_limit: limit.map(|limit| limit / median),
                to_best_peer: best_peer.map(|peer| peer / median),
            }
        });
        rows.collect()
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Times work on a thread of its own.
///
/// On a busy machine, the scheduler makes a thread that has computed wait longer after
/// each fsync than a new one. The main thread would pay for its earlier turns.
pub fn timed_apart(work: impl FnOnce() + Send) -> Duration {
    thread::scope(|scope| {
        let time = scope.spawn(|| timed(work)).join();
        time.expect("a turn that does not panic")
    })
}

/// The time per operation, as the result of a turn.
#[expect(
    clippy::cast_precision_loss,
    reason = "a bench counts far fewer operations than that"
)]
pub fn each(time: Duration, operations: usize) -> Vec<f64> {
    vec![time.as_secs_f64() * 1e9 / operations as f64]
}

/// The whole time, as the result of a turn.
pub fn total(time: Duration) -> Vec<f64> {
    each(time, 1)
}
