//! Brings changes from memory to the store.
//!
//! Plain writes queue their keys as dirty. The [flusher](flusher::Flusher) takes the values of
//! these keys in batches; conditional saves, atomic batches and transactions bring batches of
//! their own, as [proposals](proposal). Every batch goes the same way
//! ([`committer::delivery`]) and has one [outcome](committer::delivery::Outcome). Then memory
//! follows, and the callers that wait are answered.

pub(crate) mod age;
pub(crate) mod committer;
pub(crate) mod conflicts;
pub(crate) mod dirty_queue;
pub(crate) mod flusher;
pub(crate) mod proposal;
pub(crate) mod requests;
pub(crate) mod waiters;
