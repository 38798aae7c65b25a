//! A work and its contenders, measured in interleaved rounds.

use std::{thread, time::Duration};

use persistify_benches::{Unit, timed};

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

/// One work, which each contender does once a round.
pub struct Work<'a> {
    name: String,
    measures: Vec<(&'static str, Unit)>,
    contenders: Vec<Contender<'a>>,
}

struct Contender<'a> {
    name: String,
    fsync: &'static str,
    role: Role,
    /// Returns one number per measure, or fewer if the last measures do not apply.
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
        let work = Self {
            name: name.into(),
            measures: Vec::new(),
            contenders: Vec::new(),
        };
        work.and(measures, unit)
    }

    /// Adds measures in another unit.
    pub fn and(mut self, measures: &[&'static str], unit: Unit) -> Self {
        self.measures
            .extend(measures.iter().map(|measure| (*measure, unit)));
        self
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
    /// one. The first round is a warm-up and not counted.
    pub fn run(mut self, rounds: usize) -> Vec<Row> {
        self.round(0);
        self.run_cold(rounds)
    }

    /// Runs without a warm-up, for contenders that have a process of their own in each
    /// turn.
    pub fn run_cold(mut self, rounds: usize) -> Vec<Row> {
        let mut results = vec![Vec::new(); self.contenders.len()];
        for round in 1..=rounds {
            for (at, result) in self.round(round) {
                results[at].push(result);
            }
        }
        let rows: Vec<_> = (0..self.measures.len())
            .flat_map(|measure| self.rows(measure, &results))
            .collect();
        table::print(&rows);
        rows
    }

    /// Lets each contender take its turn; returns their results by their index.
    fn round(&mut self, round: usize) -> Vec<(usize, Vec<f64>)> {
        let count = self.contenders.len();
        let order = (0..count).map(|place| (place + round) % count);
        order.map(|at| (at, (self.contenders[at].turn)())).collect()
    }

    fn rows(&self, measure: usize, results: &[Vec<Vec<f64>>]) -> Vec<Row> {
        let measured: Vec<_> = self.with_measure(measure, results).collect();
        let best = |role| {
            let all = measured.iter().filter(|(one, ..)| one.role == role);
            all.map(|(_, median, _)| *median).min_by(f64::total_cmp)
        };
        let (limit, best_peer) = (best(Role::Limit), best(Role::Peer));
        let (name, unit) = self.measures[measure];
        let rows = measured.into_iter().map(|(contender, median, own)| Row {
            work: self.name.clone(),
            measure: name,
            contender: contender.name.clone(),
            role: contender.role,
            fsync: contender.fsync,
            unit,
            rounds: own.len(),
            median,
            min: own.iter().copied().fold(f64::INFINITY, f64::min),
            max: own.iter().copied().fold(0.0, f64::max),
            to_limit: limit.map(|limit| limit / median),
            to_best_peer: best_peer.map(|peer| peer / median),
        });
        rows.collect()
    }

    /// The contenders that have this measure, with their medians and their results.
    fn with_measure<'r>(
        &'r self,
        measure: usize,
        results: &'r [Vec<Vec<f64>>],
    ) -> impl Iterator<Item = (&'r Contender<'a>, f64, Vec<f64>)> {
        let all = self.contenders.iter().zip(results);
        all.filter_map(move |(contender, turns)| {
            let own = turns.iter().map(|turn| turn.get(measure).copied());
            let own: Vec<_> = own.collect::<Option<_>>()?;
            Some((contender, median(own.clone()), own))
        })
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
