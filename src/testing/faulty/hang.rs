//! Calls that hang until someone says what comes of them.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Call, failure};
use crate::{
    batch::{Batch, Committed},
    error::{ErrorKind, Result},
    provider::Provider,
};

/// Holds calls that [hang](super::Fault::Hang) until it is told what comes of
/// them. Clones hold the same calls. If all of them are dropped, the calls go
/// on hanging.
///
/// A commit that hangs and is given up by its caller can still
/// [land](Self::land): that is how a late commit is tested.
#[derive(Clone, Debug)]
pub struct Hang {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    /// The commits that hang, or were given up: what can still land.
    held: Mutex<Vec<(Batch, Arc<dyn Provider>)>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    hanging: usize,
    verdict: Option<Verdict>,
}

#[derive(Clone, Copy, Debug)]
enum Verdict {
    GoOn,
    Fail(ErrorKind),
}

impl Hang {
    /// Holds no call yet.
    #[expect(clippy::new_without_default, reason = "a handle, not a value")]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: watch::Sender::default(),
                held: Mutex::default(),
            }),
        }
    }

    /// Waits until a call hangs, or has hung, on this.
    pub async fn hangs(&self) {
        let mut state = self.shared.state.subscribe();
        // It cannot fail: the sender is borrowed.
        let _ = state.wait_for(|state| state.hanging > 0).await;
    }

    /// The calls go through now; those given up by their callers do not. Later
    /// ones do not hang.
    pub fn release(&self) {
        self.judge(Verdict::GoOn);
    }

    /// The calls fail now, without effect; whether they had one their callers
    /// cannot know. Later ones do the same.
    pub fn fail(&self, kind: ErrorKind) {
        self.judge(Verdict::Fail(kind));
    }

    /// The commits that hang, or were given up while they hung, arrive at the
    /// store now; the callers, if they still wait, go on waiting.
    ///
    /// What the store answered to each, in order.
    pub async fn land(&self) -> Vec<Result<Committed>> {
        let held = std::mem::take(&mut *self.shared.held.lock());
        let mut answers = Vec::with_capacity(held.len());
        for (batch, store) in held {
            answers.push(store.commit(&batch).await);
        }
        answers
    }

    fn judge(&self, verdict: Verdict) {
        self.shared
            .state
            .send_modify(|state| state.verdict = Some(verdict));
    }

    pub(super) async fn wait(&self, call: &Call, store: Arc<dyn Provider>) -> Result<()> {
        let mut state = self.shared.state.subscribe();
        let held = call.batch.clone().map(|batch| (batch, store));
        self.shared.held.lock().extend(held);
        self.shared.state.send_modify(|state| state.hanging += 1);
        let state = state.wait_for(|state| state.verdict.is_some()).await;
        match state.ok().and_then(|state| state.verdict) {
            Some(Verdict::Fail(kind)) => Err(failure(call, kind).outcome_unknown()),
            Some(Verdict::GoOn) | None => Ok(()),
        }
    }
}
