//! The state machine of a circuit breaker.

use std::{mem, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::{
    options::Options,
    outcomes::{Outcome, Outcomes, Reason},
};
use crate::{
    error::{Error, ErrorKind, Result},
    heartbeat::Heartbeat,
    trace::PROVIDER,
};

/// The state of a [`CircuitBreaker`](super::CircuitBreaker).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CircuitState {
    /// All calls go to the store.
    Closed,
    /// Calls fail at once; after the cool-down, the next one is a probe.
    Open,
    /// A probe is on its way to the store; other calls fail at once.
    HalfOpen,
}

/// The state that all handles of a breaker share.
#[derive(Debug)]
pub(super) struct Circuit {
    pub(super) options: Options,
    /// Changed only while `position` is locked, so that both change in one order.
    pub(super) state: watch::Sender<CircuitState>,
    position: Mutex<Position>,
    heartbeat: Option<Heartbeat>,
}

#[derive(Debug)]
struct Position {
    /// The number of openings and closings. A call from an earlier era says nothing about
    /// this one: calls that hung before the outage may end long after it.
    era: u64,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Closed(Outcomes),
    Open(Outage),
}

#[derive(Debug)]
struct Outage {
    /// The error of calls that are not sent.
    refusal: Error,
    /// The number of probes so far.
    probes: u64,
    /// When the last probe began or failed; `None` if it was cancelled.
    since: Option<Instant>,
}

/// A call that was let through.
pub(super) struct Pass {
    era: u64,
    /// The number of the probe, if it is one.
    probe: Option<u64>,
    pub(super) began: Instant,
}

impl Circuit {
    pub(super) fn new(options: Options, heartbeat: Option<Heartbeat>) -> Self {
        Self {
            options,
            heartbeat,
            state: watch::Sender::new(CircuitState::Closed),
            position: Mutex::new(Position {
                era: 0,
                phase: Phase::Closed(Outcomes::default()),
            }),
        }
    }

    /// Lets a call through, or not.
    ///
    /// # Errors
    ///
    /// `Unavailable` with the last error of the store, if the breaker is open; `Invalid` if
    /// an option is out of its bounds.
    pub(super) fn admit(&self) -> Result<Pass> {
        self.options.check()?;
        let now = Instant::now();
        let mut position = self.position.lock();
        let probe = match &mut position.phase {
            Phase::Closed(_) => None,
            Phase::Open(outage) => Some(outage.probe(now, self.options.cool_down)?),
        };
        if probe.is_some() {
            self.turn(CircuitState::HalfOpen);
        }
        Ok(Pass {
            era: position.era,
            probe,
            began: now,
        })
    }

    /// A page of a load that was let through.
    pub(super) fn page(&self) -> Pass {
        Pass {
            era: self.position.lock().era,
            probe: None,
            began: Instant::now(),
        }
    }

    /// Records the outcome of a call.
    pub(super) fn ended(&self, pass: &Pass, outcome: Outcome) {
        let now = Instant::now();
        let mut position = self.position.lock();
        if position.era != pass.era {
            return;
        }
        match &mut position.phase {
            Phase::Closed(outcomes) => {
                let opens = outcomes.after(outcome, now, &self.options);
                if let Some((reason, error)) = opens {
                    self.open(&mut position, &reason, error, now);
                }
            }
            // The answer to any probe counts, even to one that was replaced: if the store needs
            // longer than the cool-down for each answer, every probe is replaced.
            Phase::Open(_) if matches!(outcome, Outcome::Answered) => self.close(&mut position),
            Phase::Open(outage) if pass.probe == Some(outage.probes) => {
                if outage.probe_ended(outcome, now) {
                    self.turn(CircuitState::Open);
                }
            }
            // A later probe decides.
            Phase::Open(_) => {}
        }
    }

    fn open(&self, position: &mut Position, reason: &Reason, error: Error, now: Instant) {
        let (provider, cool_down) = (&self.options.name, self.options.cool_down);
        tracing::warn!(target: PROVIDER, provider, %reason, ?cool_down, error = %error.logged(), "the circuit breaker opens: calls fail at once");
        let outage = Outage::new(reason, error, now);
        position.begin_era(Phase::Open(outage));
        self.turn(CircuitState::Open);
        #[cfg(feature = "metrics")]
        self.count_opening();
    }

    fn close(&self, position: &mut Position) {
        let provider = &self.options.name;
        tracing::info!(target: PROVIDER, provider, "the circuit breaker closes: the store has answered");
        position.begin_era(Phase::Closed(Outcomes::default()));
        self.turn(CircuitState::Closed);
        // The call that closes the breaker may come from no map, and a map whose attempt
        // was refused meanwhile would wait for its next probe.
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.beat();
        }
    }

    fn turn(&self, to: CircuitState) {
        let is_change = |state: &mut CircuitState| mem::replace(state, to) != to;
        self.state.send_if_modified(is_change);
        #[cfg(feature = "metrics")]
        self.report();
    }

    /// Describes the metrics to the recorder.
    #[cfg(feature = "metrics")]
    pub(super) fn describe() {
        use metrics::{Unit::Count, describe_counter, describe_gauge};
        let states = "State of the circuit breaker: 0 closed, 1 half-open, 2 open.";
        describe_gauge!("persistify_breaker_state", Count, states);
        let openings = "How often the circuit breaker has opened.";
        describe_counter!("persistify_breaker_openings_total", Count, openings);
    }

    /// Reports the state as a metric.
    #[cfg(feature = "metrics")]
    pub(super) fn report(&self) {
        let state = match *self.state.borrow() {
            CircuitState::Closed => 0,
            CircuitState::HalfOpen => 1,
            CircuitState::Open => 2,
        };
        metrics::gauge!("persistify_breaker_state", "provider" => self.options.name.clone())
            .set(state);
    }

    #[cfg(feature = "metrics")]
    fn count_opening(&self) {
        let name = self.options.name.clone();
        metrics::counter!("persistify_breaker_openings_total", "provider" => name).increment(1);
    }
}

impl Position {
    fn begin_era(&mut self, phase: Phase) {
        self.era += 1;
        self.phase = phase;
    }
}

impl Outage {
    fn new(reason: &Reason, error: Error, now: Instant) -> Self {
        let message = format!(
            "the circuit breaker is open, because {reason}; this call was not sent to the store: \
             try again later"
        );
        // Nothing was sent, so this call has applied nothing. The sender of a batch knows of
        // its earlier attempts.
        let refusal = Error::new(ErrorKind::Unavailable, message).nothing_applied();
        Self {
            refusal: refusal.with_source(error),
            probes: 0,
            since: Some(now),
        }
    }

    /// Makes a call the next probe; returns its number.
    ///
    /// # Errors
    ///
    /// The refusal, if it is not time for a probe.
    fn probe(&mut self, now: Instant, cool_down: Duration) -> Result<u64> {
        let is_hot = |since: Instant| now.duration_since(since) < cool_down;
        if self.since.is_some_and(is_hot) {
            return Err(self.refusal.clone());
        }
        self.since = Some(now);
        self.probes += 1;
        Ok(self.probes)
    }

    /// Records that the last probe has ended without an answer of the store. Returns
    /// whether it has failed.
    fn probe_ended(&mut self, outcome: Outcome, now: Instant) -> bool {
        let Outcome::Failed(error) = outcome else {
            // It was cancelled at once; the next call takes its place.
            self.since = None;
            return false;
        };
        self.since = Some(now);
        self.refusal = self.refusal.clone().with_source(error);
        true
    }
}
