//! The record of the calls of a [`Faulty`](super::Faulty) provider.

use std::fmt;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::batch::Batch;

/// The methods of a provider for which [`Faulty`](super::Faulty) can inject faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// [`Provider::load`](crate::Provider::load).
    Load,
    /// [`Provider::commit`](crate::Provider::commit).
    Commit,
    /// [`Provider::release`](crate::Provider::release).
    Release,
    /// [`Provider::maps`](crate::Provider::maps).
    Maps,
    /// [`Provider::drop_map`](crate::Provider::drop_map).
    DropMap,
    /// [`Provider::ping`](crate::Provider::ping).
    Ping,
    /// [`Provider::close`](crate::Provider::close).
    Close,
}

const METHODS: usize = Method::Close as usize + 1;

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Commit => "commit",
            Self::Release => "release",
            Self::Maps => "maps",
            Self::DropMap => "drop_map",
            Self::Ping => "ping",
            Self::Close => "close",
        })
    }
}

#[derive(Default)]
pub(super) struct Calls {
    counts: watch::Sender<Counts>,
    batches: Mutex<Vec<Batch>>,
}

#[derive(Default)]
struct Counts {
    begun: [u64; METHODS],
    ended: [u64; METHODS],
}

impl Calls {
    pub(super) fn begin(&self, method: Method, batch: Option<&Batch>) -> Ongoing<'_> {
        let mut number = 0;
        self.batches.lock().extend(batch.cloned());
        self.counts.send_modify(|counts| {
            counts.begun[method as usize] += 1;
            number = counts.begun[method as usize];
        });
        Ongoing {
            calls: self,
            method,
            number,
        }
    }

    pub(super) fn begun(&self, method: Method) -> u64 {
        self.counts.borrow().begun[method as usize]
    }

    pub(super) fn ended(&self, method: Method) -> u64 {
        self.counts.borrow().ended[method as usize]
    }

    pub(super) async fn wait_begun(&self, method: Method, calls: u64) {
        self.wait_for(|counts| counts.begun[method as usize] >= calls)
            .await;
    }

    pub(super) async fn wait_ended(&self, method: Method, calls: u64) {
        self.wait_for(|counts| counts.ended[method as usize] >= calls)
            .await;
    }

    async fn wait_for(&self, reached: impl FnMut(&Counts) -> bool) {
        // It cannot fail: the sender is borrowed.
        let _ = self.counts.subscribe().wait_for(reached).await;
    }

    pub(super) fn batches(&self) -> Vec<Batch> {
        self.batches.lock().clone()
    }
}

/// A call in progress. It ends when this is dropped, even if the caller drops the
/// future of the call.
pub(super) struct Ongoing<'a> {
    calls: &'a Calls,
    method: Method,
    number: u64,
}

impl Ongoing<'_> {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Ongoing<'_> {
    fn drop(&mut self) {
        self.calls
            .counts
            .send_modify(|counts| counts.ended[self.method as usize] += 1);
    }
}
