//! Calls that hang until a test resolves them.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Call, failure};
use crate::{
    batch::{Batch, Committed},
    error::{ErrorKind, Result},
    provider::Provider,
};

/// A handle to calls that [hang](super::Fault::Hang).
///
/// Clones share the calls. If all clones are dropped, the calls hang for ever.
///
/// A commit that hangs can still [land](Self::land) after its caller has dropped its
/// future; use this to test late commits.
#[derive(Clone, Debug)]
pub struct Hang {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    /// The commits that can still land: hanging or abandoned by their callers.
    held: Mutex<Vec<(Batch, Arc<dyn Provider>)>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    hanging: usize,
    verdict: Option<HangVerdict>,
}

#[derive(Clone, Copy, Debug)]
enum HangVerdict {
    GoOn,
    Fail(ErrorKind),
}

impl Hang {
    /// Creates a handle without calls.
    #[expect(clippy::new_without_default, reason = "a handle, not a value")]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: watch::Sender::default(),
                held: Mutex::default(),
            }),
        }
    }

    /// Waits until a call hangs on this handle, or has done so before.
    pub async fn hangs(&self) {
        let mut state = self.shared.state.subscribe();
        // It cannot fail: the sender is borrowed.
        let _ = state.wait_for(|state| state.hanging > 0).await;
    }

    /// Lets hanging calls proceed, except those abandoned by their callers. Later
    /// calls do not hang.
    pub fn release(&self) {
        self.judge(HangVerdict::GoOn);
    }

    /// Makes hanging calls fail without effect, with
    /// [`may_have_applied`](crate::Error::may_have_applied) set. Later calls fail in
    /// the same way.
    pub fn fail(&self, kind: ErrorKind) {
        self.judge(HangVerdict::Fail(kind));
    }

    /// Sends the hanging commits to the store, including those abandoned by their
    /// callers. Callers that still wait keep waiting.
    ///
    /// Returns the answer of the store to each commit, in order.
    pub async fn land(&self) -> Vec<Result<Committed>> {
        let held = std::mem::take(&mut *self.shared.held.lock());
        let mut answers = Vec::with_capacity(held.len());
        for (batch, store) in held {
            answers.push(store.commit(&batch).await);
        }
        answers
    }

    fn judge(&self, verdict: HangVerdict) {
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
            Some(HangVerdict::Fail(kind)) => Err(failure(call, kind).outcome_unknown()),
            Some(HangVerdict::GoOn) | None => Ok(()),
        }
    }
}
