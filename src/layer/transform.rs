//! The common part of layers that store values in a form of their own.

use std::panic::resume_unwind;

use futures_util::{StreamExt, TryStreamExt};
use tokio::runtime::Handle;

use crate::{
    batch::{Batch, Change, Committed, Op},
    error::{Error, ErrorKind, Result},
    load::Load,
    name::MapName,
    provider::Provider,
    record::{Encoding, Payload, Record},
    trace::LOAD,
};

/// The bytes of values from which a batch or a page is transformed on a blocking thread. Fewer
/// are transformed on the thread of the task.
const LARGE: usize = 16 * 1024;

/// A transformation of values between the program and the wrapped provider. A clone is cheap.
pub(super) trait Transform: Clone + Send + Sync + 'static {
    /// Whether a value is stored in another form than its own.
    fn concerns(&self, payload: &Payload) -> bool;

    /// Returns the batch with the stored forms of its values.
    ///
    /// # Errors
    ///
    /// Nothing was applied.
    fn encode(&self, batch: &Batch) -> Result<Batch>;

    /// Returns the value of a stored form.
    ///
    /// # Errors
    ///
    /// Those that concern more than this record, such as a missing key: the load fails. If
    /// such records were only unreadable, a map could open without them.
    fn decode(&self, map: &MapName, key: &str, stored: &Payload) -> Result<Decoded>;
}

/// The value of a stored form.
pub(super) enum Decoded {
    /// It is stored as it is.
    Unchanged,
    Value(Payload),
    Damaged,
}

impl From<Option<Payload>> for Decoded {
    fn from(intact: Option<Payload>) -> Self {
        intact.map_or(Self::Damaged, Self::Value)
    }
}

/// Checks that the provider takes values of bytes.
///
/// # Errors
///
/// `Unsupported`.
pub(super) fn check_bytes(inner: &dyn Provider, layer: &str) -> Result<()> {
    if inner.capabilities().bytes {
        return Ok(());
    }
    let message = format!(
        "the layer {layer} stores values as bytes, and the provider below it takes JSON only; use \
         a provider with the capability `bytes`"
    );
    Err(Error::new(ErrorKind::Unsupported, message))
}

/// The batch with the stored forms of its values.
///
/// # Errors
///
/// As [`Transform::encode`].
pub(super) async fn encoded<T: Transform>(transform: &T, batch: &Batch) -> Result<Batch> {
    let Some(bytes) = concerned_bytes(transform, batch) else {
        return Ok(batch.clone());
    };
    let (transform, batch) = (transform.clone(), batch.clone());
    off_thread(bytes, move || transform.encode(&batch)).await
}

/// The size of the values that are stored in another form; `None` if there are none.
fn concerned_bytes<T: Transform>(transform: &T, batch: &Batch) -> Option<usize> {
    let changes = batch.maps.iter().flat_map(|part| &part.changes);
    let values = changes.filter_map(value_of);
    let concerned = values.filter(|value| transform.concerns(value));
    let sizes = concerned.map(|value| value.bytes.len());
    sizes.reduce(|sum, size| sum + size)
}

fn value_of(change: &Change) -> Option<&Payload> {
    match &change.op {
        Op::Put { payload, .. } => Some(payload),
        Op::Touch { .. } | Op::Delete => None,
    }
}

/// Copies a batch, with other values.
pub(super) fn with_values(
    batch: &Batch,
    mut to: impl FnMut(&MapName, &str, &Payload) -> Result<Payload>,
) -> Result<Batch> {
    let parts = batch.maps.iter().map(|part| {
        let mut part = part.clone();
        for Change { key, op, .. } in &mut part.changes {
            if let Op::Put { payload, .. } = op {
                *payload = to(&part.map, key, payload)
                    .map_err(|error| error.on_map(&part.map).on_keys([key.clone()]))?;
            }
        }
        Ok(part)
    });
    Ok(Batch {
        maps: parts.collect::<Result<_>>()?,
        ..batch.clone()
    })
}

/// The load with the values of its stored records.
pub(super) fn decoded<'a, T: Transform>(transform: T, map: &MapName, load: Load<'a>) -> Load<'a> {
    let map = map.clone();
    let decode = move |mut page: Vec<Record>| {
        let (transform, map) = (transform.clone(), map.clone());
        async move {
            let bytes = page.iter().map(size_in_bytes).sum();
            let decode = move || {
                let mut records = page.iter_mut();
                records.try_for_each(|record| decode_record(&transform, &map, record))?;
                Ok(page)
            };
            off_thread(bytes, decode).await
        }
    };
    Load {
        pages: load.pages.and_then(decode).boxed(),
        ..load
    }
}

/// The size of a record that may be transformed: all stored forms are bytes.
fn size_in_bytes(record: &Record) -> usize {
    let value = record.value.as_ref();
    let value = value.filter(|value| value.encoding == Encoding::Bytes);
    value.map_or(0, |value| value.bytes.len())
}

/// Decodes the value of a record. A damaged one stays as it is stored: it is then unreadable to
/// the map, which lists it, and copies it aside before it is overwritten.
fn decode_record<T: Transform>(transform: &T, map: &MapName, record: &mut Record) -> Result<()> {
    let Some(stored) = &record.value else {
        return Ok(());
    };
    let decoded = transform.decode(map, &record.key, stored);
    let decoded = decoded.map_err(|error| error.on_map(map).on_keys([record.key.clone()]))?;
    match decoded {
        Decoded::Unchanged => {}
        Decoded::Value(value) => record.value = Some(value),
        Decoded::Damaged => {
            tracing::warn!(target: LOAD, %map, "a stored value is damaged, or was changed or moved by another program; it is kept");
            tracing::trace!(target: LOAD, %map, key = %record.key, "this value is damaged, or was changed or moved");
        }
    }
    Ok(())
}

/// The answer to a batch, with the values of the stored records in it.
///
/// # Errors
///
/// Those of the commit and of [`Transform::decode`]. A batch that was applied is never
/// reported as not applied: the caller repeats it until its answer can be read.
pub(super) fn decoded_answer<T: Transform>(
    transform: &T,
    batch: &Batch,
    answer: Result<Committed>,
) -> Result<Committed> {
    let mut committed = answer.map_err(|error| decoded_conflict(transform, batch, error))?;
    for skipped in &mut committed.skipped {
        if let Some(found) = &mut skipped.found {
            let decoded = decode_record(transform, &skipped.map, found);
            decoded.map_err(Error::outcome_unknown)?;
        }
    }
    Ok(committed)
}

fn decoded_conflict<T: Transform>(transform: &T, batch: &Batch, error: Error) -> Error {
    let Some(mut found) = error.found().cloned() else {
        return error;
    };
    let named = error.map().and_then(|map| MapName::parse(map).ok());
    // A provider may leave out the name if there is only one.
    let only = batch.maps.first().filter(|_| batch.maps.len() == 1);
    let Some(map) = named.or(only.map(|part| part.map.clone())) else {
        return error;
    };
    match decode_record(transform, &map, &mut found) {
        Ok(()) => error.with_found(Some(found)),
        Err(cause) if error.may_have_applied() => cause.outcome_unknown(),
        Err(cause) => cause,
    }
}

/// Does the work on this many bytes; much of it on a blocking thread. `block_in_place` would
/// panic on a runtime of one thread. If the caller is cancelled, the result is dropped.
async fn off_thread<R: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<R> + Send + 'static,
) -> Result<R> {
    let runtime = Handle::try_current();
    let (true, Ok(runtime)) = (bytes >= LARGE, runtime) else {
        return work();
    };
    let done = runtime.spawn_blocking(work).await;
    done.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(error) => {
            let message = "the runtime is shutting down; nothing was written";
            let error = Error::new(ErrorKind::Unavailable, message).with_source(error);
            Err(error.nothing_applied())
        }
    })
}
