//! Brings changes from memory to the store.
//!
//! Plain writes queue their keys as dirty. The [flusher](flusher::Flusher) takes their
//! values in batches; conditional saves, atomic batches and transactions bring batches of
//! their own. Every batch goes the same way ([`delivery`]) and has one
//! [outcome](delivery::Outcome); then memory follows, and the callers that wait are
//! answered.

pub(crate) mod calls;
pub(crate) mod claims;
pub(crate) mod committer;
pub(crate) mod delivery;
pub(crate) mod doubts;
pub(crate) mod flight;
pub(crate) mod flusher;
pub(crate) mod joint;
pub(crate) mod news;
pub(crate) mod probing;
pub(crate) mod proposal;
pub(crate) mod requests;
pub(crate) mod retry;
pub(crate) mod sending;
pub(crate) mod share;
pub(crate) mod taking;
pub(crate) mod waiters;
pub(crate) mod writer;
