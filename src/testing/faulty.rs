//! A layer that injects faults.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::{
    batch::{Batch, Committed, Op},
    error::{Error, ErrorKind, Result},
    incarnation::Incarnation,
    layer::Layer,
    load::{Load, Wanted},
    name::MapName,
    provider::Provider,
};

mod calls;
mod hang;

pub use calls::Method;
use calls::{Calls, Ongoing};
pub use hang::Hang;

/// A fault to inject into a call.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Fault {
    /// No fault: the call is forwarded.
    #[default]
    None,
    /// The call fails without effect, and
    /// [`may_have_applied`](Error::may_have_applied) is false.
    Before(ErrorKind),
    /// The call fails without effect, but
    /// [`may_have_applied`](Error::may_have_applied) is true.
    Lost(ErrorKind),
    /// The call takes effect and then fails;
    /// [`may_have_applied`](Error::may_have_applied) is true.
    After(ErrorKind),
    /// The call hangs until the [`Hang`] resolves it.
    Hang(Hang),
}

/// A call, as passed to a [rule](Faulty::set_rule).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The number of the call among those of this method; the first is 1.
    pub number: u64,
    /// The map of a load, a release or a drop.
    pub map: Option<MapName>,
    /// The batch of a commit.
    pub batch: Option<Batch>,
}

/// A layer that injects faults into the calls of a provider, counts the calls and
/// records the batches. Clones share their state.
///
/// By default it forwards every call. Faults apply in this order:
/// [`down`](Self::down), planned calls ([`fail_next`](Self::fail_next),
/// [`fail_nth`](Self::fail_nth)), the [rule](Self::set_rule), the
/// [refused keys](Self::refuse).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// use std::time::SystemTime;
/// use persistify::testing::{Fault, Faulty, Method};
/// use persistify::{Batch, BatchId, ErrorKind, Memory, Provider, Revision, WriterId};
///
/// let store = Faulty::new(Memory::new());
/// store.fail_next(1, Fault::After(ErrorKind::Unavailable));
///
/// let id = BatchId::new(WriterId::random(), 1);
/// let batch = Batch::new(id, Revision::ZERO, SystemTime::now(), []);
/// assert!(store.commit(&batch).await.unwrap_err().may_have_applied());
/// store.commit(&batch).await?; // a repeat: it was applied already
/// assert_eq!(store.calls(Method::Commit), 2);
/// # Ok(())
/// # }
/// ```
pub struct Faulty<P> {
    shared: Arc<Shared>,
    inner: Arc<P>,
}

#[derive(Default)]
struct Shared {
    calls: Calls,
    plan: Mutex<Plan>,
}

type Rule = Box<dyn FnMut(&Call) -> Fault + Send>;

#[derive(Default)]
struct Plan {
    down: Option<ErrorKind>,
    /// Faults by method and number of the call.
    planned: HashMap<(Method, u64), Fault>,
    rule: Option<Rule>,
    refused: HashSet<Arc<str>>,
    refusals_name_keys: bool,
}

impl<P: Provider> Faulty<P> {
    /// Wraps a provider, without faults.
    pub fn new(inner: P) -> Self {
        Self {
            shared: Arc::default(),
            inner: Arc::new(inner),
        }
    }

    /// The wrapped provider. Calls made on it directly are neither counted nor
    /// faulty.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// Injects the fault into the next `commits` commits.
    pub fn fail_next(&self, commits: u64, fault: Fault) {
        self.fail_next_of(Method::Commit, commits, fault);
    }

    /// Injects the fault into the next `calls` calls of a method.
    #[expect(clippy::needless_pass_by_value, reason = "reads better in a test")]
    pub fn fail_next_of(&self, method: Method, calls: u64, fault: Fault) {
        let begun = self.calls(method);
        let mut plan = self.shared.plan.lock();
        for number in begun + 1..=begun + calls {
            plan.planned.insert((method, number), fault.clone());
        }
    }

    /// Injects the fault into the `nth` commit from now; the next commit is 1.
    pub fn fail_nth(&self, nth: u64, fault: Fault) {
        let number = self.calls(Method::Commit) + nth;
        let mut plan = self.shared.plan.lock();
        plan.planned.insert((Method::Commit, number), fault);
    }

    /// Makes the next commit hang until the returned handle resolves it.
    pub fn hang_next(&self) -> Hang {
        let hang = Hang::new();
        self.fail_next(1, Fault::Hang(hang.clone()));
        hang
    }

    /// Sets a rule that chooses the fault of each call.
    ///
    /// The rule runs under a lock and must not call this provider.
    pub fn set_rule(&self, rule: impl FnMut(&Call) -> Fault + Send + 'static) {
        self.shared.plan.lock().rule = Some(Box::new(rule));
    }

    /// Makes one commit in `n` fail as `Unavailable` with an unknown outcome,
    /// alternately without effect and after taking effect. Replaces the
    /// [rule](Self::set_rule).
    pub fn fail_one_in(&self, n: u64) {
        let mut effect = false;
        self.set_rule(move |call| {
            if call.method != Method::Commit || call.number.checked_rem(n) != Some(0) {
                return Fault::None;
            }
            effect = !effect;
            if effect {
                Fault::Lost(ErrorKind::Unavailable)
            } else {
                Fault::After(ErrorKind::Unavailable)
            }
        });
    }

    /// Makes every call fail with this kind, as [`Fault::Before`], until
    /// [`up`](Self::up).
    pub fn down(&self, kind: ErrorKind) {
        self.shared.plan.lock().down = Some(kind);
    }

    /// Ends [`down`](Self::down).
    pub fn up(&self) {
        self.shared.plan.lock().down = None;
    }

    /// Refuses every batch that puts one of these keys, with an error that names the
    /// refused keys of the batch. Replaces the keys of an earlier call.
    pub fn refuse<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) {
        self.refuse_keys(keys, true);
    }

    /// Like [`refuse`](Self::refuse), but the error names no keys, so that the map
    /// has to find them by bisecting the batch.
    pub fn refuse_unnamed<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) {
        self.refuse_keys(keys, false);
    }

    fn refuse_keys<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>, named: bool) {
        let mut plan = self.shared.plan.lock();
        plan.refused = keys.into_iter().map(|key| key.as_ref().into()).collect();
        plan.refusals_name_keys = named;
    }

    /// Removes all planned faults, the rule and the refused keys, and ends
    /// [`down`](Self::down). Hanging calls keep hanging.
    pub fn behave(&self) {
        *self.shared.plan.lock() = Plan::default();
    }

    /// The number of calls of a method that have begun.
    pub fn calls(&self, method: Method) -> u64 {
        self.shared.calls.begun(method)
    }

    /// The number of calls of a method that have returned or were dropped by the
    /// caller.
    pub fn calls_ended(&self, method: Method) -> u64 {
        self.shared.calls.ended(method)
    }

    /// Waits until at least `calls` calls of a method have begun.
    pub async fn begun(&self, method: Method, calls: u64) {
        self.shared.calls.wait_begun(method, calls).await;
    }

    /// Waits until at least `calls` calls of a method have ended.
    pub async fn ended(&self, method: Method, calls: u64) {
        self.shared.calls.wait_ended(method, calls).await;
    }

    /// The batch of every commit that has begun, in order, including repeated
    /// batches.
    pub fn batches(&self) -> Vec<Batch> {
        self.shared.calls.batches()
    }

    fn next_fault(&self, call: &Call) -> Result<Fault> {
        let mut plan = self.shared.plan.lock();
        if let Some(kind) = plan.down {
            return Ok(Fault::Before(kind));
        }
        if let Some(fault) = plan.planned.remove(&(call.method, call.number)) {
            return Ok(fault);
        }
        match plan.rule.as_mut().map(|rule| rule(call)) {
            Some(Fault::None) | None => plan.check_refused(call).map(|()| Fault::None),
            Some(fault) => Ok(fault),
        }
    }

    /// Counts the call, injects its fault, and runs `effect`, the call itself.
    async fn call<T, F>(
        &self,
        method: Method,
        map: Option<&MapName>,
        batch: Option<&Batch>,
        effect: F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let ongoing: Ongoing<'_> = self.shared.calls.begin(method, batch);
        let call = Call {
            method,
            number: ongoing.number(),
            map: map.cloned(),
            batch: batch.cloned(),
        };
        match self.next_fault(&call)? {
            Fault::None => effect.await,
            Fault::Before(kind) => Err(failure(&call, kind).nothing_applied()),
            Fault::Lost(kind) => Err(failure(&call, kind).outcome_unknown()),
            Fault::After(kind) => {
                effect.await?;
                Err(failure(&call, kind).outcome_unknown())
            }
            Fault::Hang(hang) => {
                hang.wait(&call, Arc::clone(&self.inner) as Arc<dyn Provider>)
                    .await?;
                effect.await
            }
        }
    }
}

impl Plan {
    fn check_refused(&self, call: &Call) -> Result<()> {
        let batch = call.batch.iter().flat_map(|batch| batch.maps.iter());
        let puts = batch.flat_map(|part| &part.changes).filter_map(|change| {
            let put = matches!(change.op, Op::Put { .. });
            put.then_some(&change.key)
        });
        let keys: Vec<_> = puts
            .filter(|k| self.refused.contains(*k))
            .cloned()
            .collect();
        if keys.is_empty() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Refused, "refused on purpose");
        Err(if self.refusals_name_keys {
            error.on_keys(keys)
        } else {
            error
        })
    }
}

fn failure(call: &Call, kind: ErrorKind) -> Error {
    let Call { method, number, .. } = call;
    Error::new(kind, format!("{method} number {number} failed on purpose"))
}

impl<P> Clone for Faulty<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<P: fmt::Debug> fmt::Debug for Faulty<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faulty").field(&&*self.inner).finish()
    }
}

#[async_trait]
impl<P: Provider> Layer for Faulty<P> {
    fn inner(&self) -> &dyn Provider {
        &*self.inner
    }

    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>> {
        let load = self.inner().load(map, wanted);
        self.call(Method::Load, Some(map), None, load).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let commit = self.inner().commit(batch);
        self.call(Method::Commit, None, Some(batch), commit).await
    }

    async fn release(&self, map: &MapName) -> Result<()> {
        let release = self.inner().release(map);
        self.call(Method::Release, Some(map), None, release).await
    }

    async fn maps(&self) -> Result<Vec<MapName>> {
        let maps = self.inner().maps();
        self.call(Method::Maps, None, None, maps).await
    }

    async fn drop_map(&self, map: &MapName) -> Result<()> {
        let drop_map = self.inner().drop_map(map);
        self.call(Method::DropMap, Some(map), None, drop_map).await
    }

    async fn ping(&self) -> Result<Option<Incarnation>> {
        self.call(Method::Ping, None, None, self.inner().ping())
            .await
    }

    async fn close(&self) -> Result<()> {
        self.call(Method::Close, None, None, self.inner().close())
            .await
    }
}
