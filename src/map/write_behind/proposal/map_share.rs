//! A map's share of a proposal, typed by its values.

use std::{any::Any, collections::BTreeMap, mem, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    share::{Landing, Share},
    staged::StagedChange,
};
use crate::{
    batch::{Change, Expect, MapBatch, Op, Otherwise},
    error::{Error, ErrorKind, Result},
    map::{
        core::Core,
        lifetime::Lifetime,
        table::{discarded::Discarded, entry::Slot, landing::LockedShare},
    },
    name::MapName,
    record::{Payload, Record},
};

/// A share of a map with values of this type.
pub(crate) struct MapShare<V, L: Lifetime<V>> {
    core: Arc<Core<V, L>>,
    /// Sorted by key, so that batches of several writers take the store's row locks
    /// in the same order.
    steps: BTreeMap<Arc<str>, StagedChange<V>>,
    problem: Option<Error>,
    replaced: Vec<Discarded<V, L>>,
}

impl<V, L> MapShare<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    pub(crate) fn new(core: Arc<Core<V, L>>) -> Self {
        Self {
            core,
            steps: BTreeMap::new(),
            problem: None,
            replaced: Vec::new(),
        }
    }

    pub(crate) fn is_of(&self, core: &Arc<Core<V, L>>) -> bool {
        Arc::ptr_eq(&self.core, core)
    }

    /// Stages a put. The value is encoded when the proposal is sent.
    pub(crate) fn insert(&mut self, key: &str, value: V, ttl: Option<Duration>) {
        let at = self.core.clock.now();
        let step = self.step(key);
        (step.op, step.value) = (None, Some(value));
        (step.ttl, step.at) = (ttl, at);
    }

    pub(crate) fn remove(&mut self, key: &str) {
        let step = self.step(key);
        (step.op, step.value) = (Some(Op::Delete), None);
    }

    pub(crate) fn require(&mut self, key: &str, expect: Expect) {
        let step = self.step(key);
        if step.expect.replace(expect).is_some_and(|was| was != expect) {
            let message = "the commit requires two different states of one key; require one";
            self.note(Error::new(ErrorKind::Invalid, message).on_keys([key.into()]));
        }
    }

    fn step(&mut self, key: &str) -> &mut StagedChange<V> {
        let at = self.core.clock.now();
        self.steps
            .entry(key.into())
            .or_insert_with(|| StagedChange {
                op: None,
                expect: None,
                value: None,
                ttl: None,
                at,
            })
    }

    fn encode_value(&self, value: &V) -> Result<Payload> {
        let payload = self.core.encode(value)?;
        if let Err(mut not_read) = self.core.verify(&payload) {
            not_read.look_in(value);
            return Err(not_read.refusal::<V>());
        }
        Ok(payload)
    }

    fn note(&mut self, error: Error) {
        let name = &self.core.name;
        self.problem.get_or_insert_with(|| error.on_map(name));
    }
}

impl<V, L> Share for MapShare<V, L>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    L: Lifetime<V>,
{
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn name(&self) -> &MapName {
        &self.core.name
    }

    fn id(&self) -> usize {
        Arc::as_ptr(&self.core).addr()
    }

    fn seal(&mut self) -> Result<()> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        self.core.check_open()?;
        self.steps
            .retain(|_, step| step.is_change() || step.expect() != Expect::Any);
        for (key, step) in &mut self.steps {
            if !step.is_change() {
                step.op = Some(self.core.unchanged(key, step.expect())?);
            }
        }
        Ok(())
    }

    fn encode(&mut self) -> Result<()> {
        let mut steps = mem::take(&mut self.steps);
        let encoded = steps.iter_mut().try_for_each(|(key, step)| {
            let Some(value) = &step.value else {
                return Ok(());
            };
            let payload = self.encode_value(value);
            let payload =
                payload.map_err(|error| error.on_map(&self.core.name).on_keys([key.clone()]))?;
            let expires_at = self.core.lifetime.ends_at(step.ttl, step.at);
            step.op = Some(Op::Put {
                payload,
                expires_at,
            });
            Ok(())
        });
        self.steps = steps;
        encoded
    }

    fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn is_conditional(&self) -> bool {
        let mut steps = self.steps.values();
        steps.any(|step| step.expect() != Expect::Any)
    }

    fn keys(&self) -> Vec<Arc<str>> {
        self.steps.keys().cloned().collect()
    }

    fn part(&self, otherwise: Otherwise) -> MapBatch {
        let change = |(key, step): (&Arc<str>, &StagedChange<V>)| {
            let op = step.op.clone()?;
            let change = Change::new(key.clone(), op).expect(step.expect(), otherwise);
            Some(change.written_at(L::EXPIRES.then(|| step.written_at())))
        };
        let changes = self.steps.iter().filter_map(change).collect();
        MapBatch::new(self.core.name.clone(), changes)
    }

    fn mark_proposed(&mut self) {
        for (key, step) in &mut self.steps {
            if let Some(Op::Touch { .. }) = step.op {
                let touch = self.core.touch_of(key);
                // If the entry has expired meanwhile, the store decides.
                step.op = touch.or(step.op.take());
            }
            self.core.mark_proposed(key);
        }
    }

    fn lock(&mut self) -> Box<dyn Landing + '_> {
        Box::new(LockedShare::new(
            &self.core,
            &mut self.steps,
            &mut self.replaced,
        ))
    }

    fn landed(&mut self) {
        for replaced in self.replaced.drain(..) {
            self.core.discard(Some(replaced));
        }
    }

    fn learn(&self, key: &Arc<str>, found: Option<Record>) {
        self.core.learn(key, found);
    }

    fn withdraw(&self, uncertain: bool) {
        for key in self.steps.keys() {
            self.core.withdraw(key, uncertain);
        }
    }
}

/// Drops the values that were not applied to memory. This may run anywhere,
/// including on the background task, so a panic in a `Drop` is caught.
impl<V, L: Lifetime<V>> Drop for MapShare<V, L> {
    fn drop(&mut self) {
        for step in mem::take(&mut self.steps).into_values() {
            self.core.drop_value(step);
        }
        for replaced in self.replaced.drain(..) {
            self.core.discard(Some(replaced));
        }
    }
}

impl<V, L: Lifetime<V>> Core<V, L> {
    /// The change for a key that is only required to have some state: it leaves the
    /// entry as it is, if the requirement holds.
    fn unchanged(&self, key: &Arc<str>, expect: Expect) -> Result<Op> {
        if expect == Expect::Absent {
            return Ok(Op::Delete);
        }
        self.touch_of(key).ok_or_else(|| {
            let message =
                "there is no such entry in memory, but it was required; nothing was written";
            Error::new(ErrorKind::Conflict, message)
                .on_map(&self.name)
                .on_keys([key.clone()])
        })
    }

    /// A change that leaves an entry as it is; `None` if its expiry is unknown.
    fn touch_of(&self, key: &str) -> Option<Op> {
        if !L::EXPIRES {
            return Some(Op::Touch { expires_at: None });
        }
        let touch = |slot: &Slot<V, L::Lease>| {
            let (_, lease) = slot.live(&self.lifetime)?;
            let expires_at = self.lifetime.stored_expiry(lease);
            Some(Op::Touch { expires_at })
        };
        self.peek(key, touch)?
    }
}
