//! Migrations: the schema versions of a map's values, and the steps between them.

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde_json::Value;

use crate::{
    codec,
    error::{Error, ErrorKind, Result},
    record::Payload,
};

type Cause = Box<dyn StdError + Send + Sync>;

type Step = Arc<dyn Fn(Value) -> Result<Value, Cause> + Send + Sync>;

/// The result of a [migration step](crate::Builder::migrate): the value in the next
/// schema version, or a `Result` of it.
pub trait Migrated {
    /// Returns the value, or the error.
    ///
    /// # Errors
    ///
    /// The error of the step. The record is then unreadable; it stays in the store
    /// unchanged.
    fn into_result(self) -> Result<Value, Box<dyn StdError + Send + Sync>>;
}

impl Migrated for Value {
    fn into_result(self) -> Result<Value, Cause> {
        Ok(self)
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> Migrated for Result<Value, E> {
    fn into_result(self) -> Result<Value, Cause> {
        self.map_err(Into::into)
    }
}

/// The schema version that the program writes, and the steps that lead to it from
/// older ones.
#[derive(Clone, Default)]
pub(crate) struct Migrations {
    pub(crate) current: u32,
    /// Whether values that were migrated on load become pending.
    pub(crate) rewrite: bool,
    steps: BTreeMap<u32, Step>,
    twice: Option<u32>,
}

impl Migrations {
    pub(crate) fn add<R: Migrated>(
        &mut self,
        from: u32,
        step: impl Fn(Value) -> R + Send + Sync + 'static,
    ) {
        let step = move |value| step(value).into_result();
        if self.steps.insert(from, Arc::new(step)).is_some() {
            self.twice = Some(from);
        }
    }

    /// # Errors
    ///
    /// `Invalid`, naming the step that is duplicate, leads nowhere, or is missing.
    pub(crate) fn check(&self) -> Result<()> {
        let current = self.current;
        if let Some(from) = self.twice {
            let problem =
                format!("migrate: there are two steps from schema version {from}; keep one");
            return Err(Error::new(ErrorKind::Invalid, problem));
        }
        let mut next = self.steps.keys().next().copied().unwrap_or(current);
        for &from in self.steps.keys() {
            if from >= current {
                return Err(leads_nowhere(from, current));
            }
            if from != next {
                break;
            }
            next += 1;
        }
        if next == current {
            return Ok(());
        }
        let problem = format!(
            "migrate: the step from schema version {next} is missing, on the way to {current}"
        );
        Err(Error::new(ErrorKind::Invalid, problem))
    }

    /// # Errors
    ///
    /// `Invalid`, naming both versions, if the program does not know version `found`.
    /// The remedy is another program, or another option of this one: neither the
    /// store nor a record is broken.
    pub(crate) fn check_known(&self, found: u32) -> Result<()> {
        let current = self.current;
        if found > current {
            let message = format!(
                "the store holds values of schema version {found}, and this program knows \
                 versions up to {current} (`schema`): open the map with the program that wrote them"
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if found == current || self.steps.contains_key(&found) {
            return Ok(());
        }
        let message = format!(
            "the store holds values of schema version {found}, and no step leads from there to \
             version {current}: add `.migrate({found}, ..)`"
        );
        Err(Error::new(ErrorKind::Invalid, message))
    }

    /// Migrates a payload to the current schema version; `None` if it has that already.
    ///
    /// # Errors
    ///
    /// Those of [`check_known`](Self::check_known); `Corrupt` if it is not JSON, or
    /// if a step fails or panics.
    pub(crate) fn upgraded(&self, payload: &Payload) -> Result<Option<Payload>> {
        if payload.schema == self.current {
            return Ok(None);
        }
        self.check_known(payload.schema)?;
        let mut value = codec::decode(payload)?;
        for (from, step) in self.steps.range(payload.schema..) {
            value = upgrade(*from, step, value)?;
        }
        Ok(Some(
            Payload::json(value.to_string()).with_schema(self.current),
        ))
    }
}

fn upgrade(from: u32, step: &Step, value: Value) -> Result<Value> {
    // A panic in a step must cost one record, not the background task.
    let done = catch_unwind(AssertUnwindSafe(|| step(value)));
    let done = done.unwrap_or_else(|panic| Err(codec::panicked(panic.as_ref()).into()));
    done.map_err(|cause| {
        let message = format!(
            "the stored value is of schema version {from}, and the step from there to version {} \
             failed",
            from + 1
        );
        Error::new(ErrorKind::Corrupt, message).with_source(cause)
    })
}

fn leads_nowhere(from: u32, current: u32) -> Error {
    let problem = format!(
        "migrate: the step from schema version {from} leads beyond {current}, which the program \
         writes; raise `schema`"
    );
    Error::new(ErrorKind::Invalid, problem)
}

impl fmt::Debug for Migrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migrations")
            .field("current", &self.current)
            .field("rewrite", &self.rewrite)
            .field("steps", &self.steps.keys())
            .finish_non_exhaustive()
    }
}
