//! The write-behind pipeline: carries changes from memory to the store.
//!
//! Plain writes queue their keys as dirty. The [flusher](flusher::Flusher) takes
//! the values of these keys in batches; conditional saves, atomic batches and
//! transactions bring their own batches, as [proposals](proposal). Every batch is
//! sent by [`committer::delivery`] and has one
//! [outcome](committer::delivery::Outcome). Then memory is updated and waiting
//! callers are answered.

pub(crate) mod age;
pub(crate) mod committer;
pub(crate) mod conflicts;
pub(crate) mod dirty_queue;
pub(crate) mod flusher;
pub(crate) mod proposal;
pub(crate) mod requests;
pub(crate) mod triggers;
pub(crate) mod waiters;
